"""Outgoing calls: one channel per target, with everything that each call must carry.

A stub built on `RpcChannels.channel(...)` is called as usual (`await stub.Method(request, timeout=…)`). The channel
adds deadline, service token, originating subject, correlation and trace, and turns a failed call into the `AppError`
that the peer raised. Only unary methods exist here: pages and batches take the place of streams.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from servicekit.rpc import metadata as names
from servicekit.rpc.call import UnaryCall
from servicekit.rpc.service_config import service_config
from servicekit.rpc.service_token import ServiceTokenSource, TokenSource
from servicekit.rpc.wire import PEER_UNAVAILABLE

if TYPE_CHECKING:
    from servicekit.settings import ServiceSettings

DEFAULT_TIMEOUT_S = 2.0
CLOSE_GRACE_S = 2.0

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_retries", 1),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", names.KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", names.KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", names.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", names.MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", names.MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", names.MAX_METADATA_BYTES),
    # A peer that restarts is found again within a second instead of gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)


class RpcChannels:
    """The channels of one process, by the peer's name in `settings.rpc_targets`.

    `tokens` gives the service token; by default the one that identity issues for `settings.service_secret`, under the
    name of the service (`service`, else taken from the package of the settings class).
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        tokens: TokenSource | None = None,
        service: str | None = None,
        default_timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._service = service or type(settings).__module__.partition(".")[0].removesuffix("_service")
        self._default_timeout_s = default_timeout_s
        self._channels: dict[str, KitChannel] = {}
        self._exchange_channel: KitChannel | None = None
        self._tokens = tokens
        if tokens is None and settings.service_secret is not None:
            self._tokens = ServiceTokenSource(self._exchange)

    @property
    def tokens(self) -> TokenSource | None:
        """Where the service token of each call comes from; None in a process that was given no secret."""
        return self._tokens

    def channel(self, peer: str) -> KitChannel:
        """The channel to a peer. Raises KeyError when `OMOIOS_RPC_TARGETS` does not name it."""
        channel = self._channels.get(peer)
        if channel is None:
            channel = KitChannel(peer, self._target(peer), self._tokens, self._default_timeout_s)
            self._channels[peer] = channel
        return channel

    async def start(self) -> None:
        """Fetches the service token ahead of the first call; an absent identity is not waited for."""
        if isinstance(self._tokens, ServiceTokenSource):
            self._tokens.warm_up()

    async def close(self) -> None:
        """Closes every channel; calls in flight get a moment to end."""
        if isinstance(self._tokens, ServiceTokenSource):
            await self._tokens.close()
        channels = [*self._channels.values(), *filter(None, [self._exchange_channel])]
        await asyncio.gather(*(channel.close(CLOSE_GRACE_S) for channel in channels))

    def _target(self, peer: str) -> str:
        target = self._settings.rpc_targets.get(peer)
        if target is None:
            raise KeyError(f"OMOIOS_RPC_TARGETS names no target for {peer!r}")
        return target

    async def _exchange(self) -> tuple[str, float]:
        from servicekit.auth.identity import IdentityClient

        secret = self._settings.service_secret
        if secret is None:
            raise PEER_UNAVAILABLE(peer="identity")
        if self._exchange_channel is None:
            self._exchange_channel = KitChannel("identity", self._target("identity"), None, self._default_timeout_s)
        client = IdentityClient(self._exchange_channel)
        return await client.issue_service_token(self._service, secret.get_secret_value())


class KitChannel(grpc.aio.Channel):
    """A `grpc.aio.Channel` to one target; connects at the first call.

    The methods that a stub asks for decide the service config. A stub that is made later with further methods replaces
    the underlying channel; calls in flight end on the old one.
    """

    def __init__(self, peer: str, target: str, tokens: TokenSource | None, default_timeout_s: float) -> None:
        self.peer = peer
        self.target = address(target)
        self.default_timeout_s = default_timeout_s
        self._tokens = tokens
        self._methods: set[str] = set()
        self._config: str | None = None
        self._raw: grpc.aio.Channel | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """What a generated stub calls for each unary method."""
        if method not in self._methods:
            self._methods.add(method)
            self._config = None
        return UnaryCall(self, method, request_serializer, response_deserializer, self._tokens)

    def unary_stream(self, method: str, *_args: Any, **_kwargs: Any) -> Any:
        """Streams are not part of the house's contracts; the call fails when it is made, the stub can be built."""
        return _no_streams(method)

    def stream_unary(self, method: str, *_args: Any, **_kwargs: Any) -> Any:
        """As `unary_stream`."""
        return _no_streams(method)

    def stream_stream(self, method: str, *_args: Any, **_kwargs: Any) -> Any:
        """As `unary_stream`."""
        return _no_streams(method)

    def raw(self) -> grpc.aio.Channel:
        """The underlying channel with the service config of all methods known by now."""
        if self._raw is None or self._config is None:
            config = service_config(self._methods)
            previous, self._config = self._raw, config
            self._raw = grpc.aio.insecure_channel(self.target, options=(*_OPTIONS, ("grpc.service_config", config)))
            if previous is not None:
                task = asyncio.create_task(previous.close(CLOSE_GRACE_S), name="channel-close")
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
        return self._raw

    async def close(self, grace: float | None = None) -> None:
        """Closes; `grace` seconds for calls in flight."""
        raw, self._raw = self._raw, None
        if raw is not None:
            await raw.close(grace)
        await asyncio.gather(*self._retiring, return_exceptions=True)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Of the underlying channel."""
        return self.raw().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the underlying channel."""
        await self.raw().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns once connected."""
        await self.raw().channel_ready()

    async def __aenter__(self) -> KitChannel:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


def _no_streams(method: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise TypeError(f"{method} streams; calls between services are unary")

    return refuse


def address(target: str) -> str:
    """The target as gRPC wants it: `dns:///host:port`, so that every address of a name is balanced over."""
    return target if re.match(r"[a-z0-9+.-]+:///?", target) else f"dns:///{target}"
