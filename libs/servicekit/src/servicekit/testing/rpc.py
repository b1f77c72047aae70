"""Peers that answer gRPC in this process."""

from __future__ import annotations

import sys
from typing import Any

from servicekit.auth.access import WITHOUT_TOKEN, AccessTable
from servicekit.errors import UNAUTHENTICATED
from servicekit.rpc.server import RpcServer, RpcServicer
from servicekit.settings import ServiceSettings


class RpcStubs:
    """`target = await rpc_stub(FakeVcs())`: serves a subclass of a generated servicer on a free port.

    The kit's own server answers, so that an `AppError` raised in the fake reaches the client as from a real peer.
    """

    def __init__(self) -> None:
        self._servers: list[RpcServer] = []

    async def __call__(self, *servicers: Any) -> str:
        """Serve; returns `127.0.0.1:<port>` for `rpc_targets`."""
        served = [_servicer(instance) for instance in servicers]
        names = {method.rpartition("/")[2] for item in served for method in item.methods()}
        access = AccessTable(operations={}, rpcs=dict.fromkeys(names, WITHOUT_TOKEN))
        server = RpcServer(ServiceSettings(env="test", rpc_port=0, shutdown_grace_s=0), served, access, _nobody)
        await server.start()
        self._servers.append(server)
        return f"127.0.0.1:{server.port}"

    async def close(self) -> None:
        """End all of them."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.close()


async def _nobody(_token: str) -> str:
    raise UNAUTHENTICATED()


def _servicer(instance: Any) -> RpcServicer:
    for base in type(instance).__mro__:
        module = sys.modules.get(base.__module__)
        add = getattr(module, f"add_{base.__name__}_to_server", None)
        if add is not None and base.__module__.endswith("_pb2_grpc"):
            package = base.__module__.rpartition(".")[0]
            return RpcServicer(add, instance, f"{package}.{base.__name__.removesuffix('Servicer')}")
    raise TypeError(f"{type(instance).__name__} is not a subclass of a generated servicer")
