"""The example of docs/clients.md, run as it stands."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import wave
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.client.scripted import Call, serving, talk

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"


async def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    example = re.search(r"```python client\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert example
    program, recording = tmp_path / "example.py", tmp_path / "a.wav"
    program.write_text(example[1], "utf-8")
    audio = bytes(range(256)) * 200
    with wave.open(str(recording), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(audio)

    async def script(call: Call) -> None:
        await call.ready()
        await call.say("partial", channel=0, segment=0, text="and")
        await call.final(0, "and so")
        await call.end(finals=1)

    async with serving(talk(script)) as server:
        command = [sys.executable, str(program), server.url, str(recording)]
        found = os.environ | {"PYTHONPATH": str(ROOT)}
        process = await asyncio.create_subprocess_exec(*command, env=found, stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert bytes(server.calls[0].audio) == audio
    assert out.decode() == "... and\nand so\n1.2 s, 1 finals\n"
