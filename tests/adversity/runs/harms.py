"""What can be done to a line, for how long, and how it is undone."""

from __future__ import annotations

import asyncio

from tests.adversity.runs.lines import Line

THROTTLE_BYTES_PER_S = 40_000.0
DELAY_S = 0.15


async def harm_line(line: Line, what: str, lasts_s: float) -> None:
    """Do it, and undo it after ``lasts_s`` seconds where it lasts.

    Raises:
        ValueError: there is no such harm.
    """
    match what:
        case "cut":
            for connection in line.connections:
                connection.reset()
        case "close":
            for connection in line.connections:
                connection.close()
        case "half_up" | "half_down":
            for connection in line.connections:
                connection.half_close("up" if what == "half_up" else "down")
        case "hole":
            for connection in line.connections:
                connection.hold()
        case "refuse":
            line.refusing = True
            for connection in line.connections:
                connection.reset()
            await asyncio.sleep(lasts_s)
            line.refusing = False
        case "stall":
            await _stall(line, lasts_s)
        case "throttle" | "delay":
            await _slow(line, what, lasts_s)
        case _:
            raise ValueError(f"nobody knows how to {what} a line")


async def _stall(line: Line, lasts_s: float) -> None:
    """Newcomers too; afterwards all goes on as if nothing had been."""
    line.holding = True
    for connection in line.connections:
        connection.hold()
    await asyncio.sleep(lasts_s)
    line.holding = False
    for connection in line.connections:
        connection.let_go()


async def _slow(line: Line, what: str, lasts_s: float) -> None:
    harmed = line.connections
    for connection in harmed:
        connection.bytes_per_s = THROTTLE_BYTES_PER_S if what == "throttle" else None
        connection.delay_s = DELAY_S if what == "delay" else 0.0
    await asyncio.sleep(lasts_s)
    for connection in harmed:
        connection.bytes_per_s, connection.delay_s = None, 0.0
