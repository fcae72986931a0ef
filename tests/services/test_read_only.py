"""A container as strict hosts run it: the root file system takes no writes, /tmp neither, and there is no $HOME."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import aiohttp

from tests.support.processes import ROOT, Served

STRICT = """
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro /
if mountpoint -q /tmp; then mount -o remount,bind,ro /tmp; fi
if touch "$2" 2>/dev/null; then echo '{"event": "not read-only"}'; exit 1; fi
shift 2
exec env -u HOME -u TMPDIR "$@"
"""
"""In a mount namespace of its own; wants root, as the steps that install services do."""


async def test_only_the_data_directory_takes_writes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    prefix = ("unshare", "--mount", "sh", "-e", "-c", STRICT, "strict", str(data), str(tmp_path / "probe"))
    server = Served(data, {"TMPDIR": "", "PYTHONDONTWRITEBYTECODE": ""}, prefix=prefix)
    server.module = ("streamsrv", "serve", "--engine", "sphinx")
    await server.start()
    try:
        recording = (ROOT / "tests/data/speech/jfk.flac").read_bytes()
        form = aiohttp.FormData({"interviewId": "strict", "file": io.BytesIO(recording)})
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{server.http}/transcription/upload", data=form) as answer,
        ):
            assert answer.status == 200, await answer.text()
        assert len(await server.finals("strict")) > 0
        server.signal(signal.SIGTERM)
        assert await server.end() == 0
        assert [line for line in server.lines if line["level"] in ("warning", "error")] == []
    finally:
        await server.kill()
