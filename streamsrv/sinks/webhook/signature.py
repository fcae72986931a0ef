"""Who sent it, and when: ``Streamsrv-Signature: t=SECONDS,v1=HEX[,v1=HEX]``.

``HEX`` is HMAC-SHA256, by the shared secret, over ``SECONDS``, a full stop and the body as it was sent; one for each
secret in use.  A receiver compares in constant time and refuses what is older than a few minutes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

HEADER = "Streamsrv-Signature"
TOLERANCE_S = 300
"""Age beyond which a receiver should refuse."""


def sign(body: bytes, secrets: Sequence[str], *, at_s: int) -> str:
    """The header's value.

    Args:
        at_s: UTC, seconds since 1970.
    """
    return ",".join([f"t={at_s}", *(f"v1={_digest(body, secret, at_s)}" for secret in secrets)])


def verify(header: str, body: bytes, secrets: Sequence[str], *, now_s: float, tolerance_s: int = TOLERANCE_S) -> bool:
    """Whether one of the secrets signed this body, not long ago; for receivers written in Python."""
    pairs = [part.partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t" and value.isdecimal() and len(value) < 16]
    if len(times) != 1 or abs(now_s - int(times[0])) > tolerance_s:
        return False
    given = [value for name, _, value in pairs if name == "v1"]
    wanted = [_digest(body, secret, int(times[0])) for secret in secrets]
    return sum([hmac.compare_digest(one.encode(), two.encode()) for one in given for two in wanted]) > 0


def _digest(body: bytes, secret: str, at_s: int) -> str:
    return hmac.new(secret.encode(), b"%d." % at_s + body, hashlib.sha256).hexdigest()
