"""What the segmenter tells: tuples, because it tells them from native code."""

from __future__ import annotations

from typing import Literal, TypeAlias

Began: TypeAlias = tuple[Literal[0], int, int]
"""``(BEGAN, start, position)``"""
Ended: TypeAlias = tuple[Literal[1], int, int, float, Literal["vad", "flush", "finish", "length"], bool, int]
"""``(ENDED, stop, speech_stop, speech_at, cause, over, position)``"""
Advanced: TypeAlias = tuple[Literal[2], int, int, int]
"""``(ADVANCED, position, restart, quiet)``"""
Told: TypeAlias = Began | Ended | Advanced
