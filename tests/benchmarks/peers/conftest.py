"""The tone model's sounds come from its module, which needs the extra ``whisper``."""

from __future__ import annotations

import pytest

pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")
