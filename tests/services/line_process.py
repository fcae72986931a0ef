"""A line to a server somewhere else: ``python -m tests.services.line_process PORT HOST PORT``.

To clients it is that server: they are refused when it is killed, and wait when it is paused.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

PIECE_BYTES = 65_536


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(PIECE_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(port: int, host: str, far_port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, far_port)
        except OSError:
            return writer.close()
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    async with await asyncio.start_server(carry, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
