"""Starts many programs while it serves and calls gRPC; prints how many a signal ended. Run by `test_forking.py`."""

import asyncio
import sys

import grpc
import uvloop

SPAWNERS = 4
PROGRAMS = 40


async def main() -> None:
    async def answer(_request: bytes, _context: object) -> bytes:
        return b""

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("test.Test", {"Call": grpc.unary_unary_rpc_method_handler(answer)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    call = channel.unary_unary("/test.Test/Call")
    killed = 0

    async def load() -> None:
        while True:
            await call(b"")

    async def spawn() -> None:
        nonlocal killed
        for _ in range(PROGRAMS):
            process = await asyncio.create_subprocess_exec("/bin/true", stderr=asyncio.subprocess.DEVNULL)
            killed += await process.wait() != 0

    loads = [asyncio.create_task(load()) for _ in range(SPAWNERS)]
    await asyncio.gather(*(spawn() for _ in range(SPAWNERS)))
    for task in loads:
        task.cancel()
    await asyncio.gather(*loads, return_exceptions=True)
    await channel.close()
    await server.stop(None)
    sys.stdout.write(str(killed))


uvloop.run(main())
