"""A WebSocket server and client by `websockets`: `ws.py serve` echoes, `ws.py call URL` tries everything once."""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    if sys.argv[1] == "serve":
        host, port = os.environ["MESH_APP_ADDR"].split(":")
        async with serve(echo, host, int(port), max_size=4 << 20) as server:
            await server.serve_forever()
    async with connect(sys.argv[2], max_size=4 << 20) as socket:
        for sent in ["hello", "x" * 70_000, os.urandom(1 << 20)]:
            await socket.send(sent)
            assert await socket.recv() == sent, f"{len(sent)} did not come back"
        await (await socket.ping("are you there"))
        await socket.close(4001, "enough")
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 4001, closed


asyncio.run(main())
