"""What a speaker is told, and what of it was promised before."""

from __future__ import annotations

import aiohttp
import msgspec


async def final_texts(socket: aiohttp.ClientWebSocketResponse) -> list[str]:
    """Texts of the finals until the server closes; each message begins with what was stable before."""
    texts: list[str] = []
    promised: dict[int, str] = {}
    async for message in socket:
        event = msgspec.json.decode(message.data)
        if event["type"] in ("partial", "final"):
            assert event["text"].startswith(promised.get(event["segment"], ""))
            promised[event["segment"]] = event["text"][: event.get("stable_chars", 0)]
        if event["type"] == "final":
            texts.append(event["text"])
    return texts
