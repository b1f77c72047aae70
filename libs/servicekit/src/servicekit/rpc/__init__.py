"""Calls between services: the server, the channels, and what a servicer may know of its caller."""

from servicekit.rpc.channels import KitChannel, RpcChannels
from servicekit.rpc.context import RpcContext
from servicekit.rpc.server import RpcServer, RpcServicer
from servicekit.rpc.service_token import FixedToken, ServiceTokenSource, TokenSource

__all__ = [
    "FixedToken",
    "KitChannel",
    "RpcChannels",
    "RpcContext",
    "RpcServer",
    "RpcServicer",
    "ServiceTokenSource",
    "TokenSource",
]
