"""Traefik's configuration, rendered from ``gateway/routes.yaml`` for wherever the services listen.

The embedded stack renders it for its own ports; `gateway_edge.following` for instances that DNS names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway_edge import openapi, pending
from gateway_edge.pending import Operation
from gateway_edge.routes import EDGE, OWNERS, SERVICES, Routes, load
from gateway_edge.traefik_routers import limit_routers, routers

DEFAULT_PORTS = {
    "gateway": 18000,
    "identity": 18101,
    "workflow": 18102,
    "agents": 18103,
    "monitoring": 18104,
    "billing": 18105,
    "vcs": 18106,
    "edge": 18107,
    "limits": 18009,
}

# A dead instance refuses the probe at once; one that hangs is left out after the timeout, which is longer than the
# interval because a busy event loop answers late.
HEALTH_CHECK = {"path": "/readyz", "interval": "1s", "unhealthyInterval": "500ms", "timeout": "3s"}

# Where no instance is ready, one that lives is asked all the same: it knows why it is not (and says 503 with
# Retry-After), it is only busy, or it goes on serving until the next one has been noticed. Only what does not even
# answer this is away.
LIFE_CHECK = {"path": "/livez", "interval": "5s", "unhealthyInterval": "500ms", "timeout": "30s"}

# Traefik makes each pause half as long again, up to twice the first one, and varies it by half. So twelve attempts take
# 1.0 s to 3.1 s: they reach past the second in which a killed instance is still in rotation. Requests whose bytes may
# have reached an instance are repeated only for idempotent methods, and only with bodies up to this size: Traefik sets
# that many bytes aside for every request (1 MiB cost 830 µs of CPU each, 2 KiB no measurable time).
RETRY = {"attempts": 12, "initialInterval": "100ms"}
RETRY_BODY_BYTES = 2_048


@dataclass(frozen=True)
class Options:
    """What an operator decides about the gateway.

    ``listen``: address of the entry point without its port. ``rate_limits``: ``loose`` or ``contract``.
    ``trusted_proxies``: networks in front of the gateway whose X-Forwarded-* is believed. ``access_log``: a file;
    None writes to standard output, the empty string turns it off. ``metrics_port``: Prometheus metrics and ``/ping``,
    on ``metrics_host``.
    """

    listen: str = "127.0.0.1"
    rate_limits: str = "loose"
    trusted_proxies: tuple[str, ...] = ()
    access_log: str | None = None
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    log_level: str = "WARN"


def render(
    ports: Mapping[str, int],
    directory: Path,
    *,
    environment: str = "local",
    instances: Mapping[str, Sequence[int | str]] | None = None,
    options: Options | None = None,
    routes: Routes | None = None,
    not_built: Iterable[Operation] | None = None,
    built: Iterable[Operation] | None = None,
) -> Path:
    """Writes ``traefik.yml`` and ``dynamic/gateway.yml`` below ``directory`` and returns the first one.

    ``ports``: ``gateway``, ``limits`` (where Traefik counts for its rate limits, on loopback) and, for services with
    one instance on 127.0.0.1, their HTTP port. ``instances``: service → all its instances, each a local port or
    ``host:port``; it replaces the port of that service, and an empty list means that nothing runs. A running Traefik
    follows a rewritten dynamic file, so call it again when instances change.
    ``not_built`` and ``built`` default to ``tools/coverage/pending.txt`` and what ``gateway/openapi.json`` declares.
    """
    chosen = options or Options()
    table = routes or load()
    addresses = addresses_of(ports, instances or {})
    listed = pending.read() if not_built is None else list(not_built)
    served = openapi.committed_operations() if built is None else list(built)
    dynamic = directory.absolute() / "dynamic"
    dynamic.mkdir(parents=True, exist_ok=True)
    static_file = directory.absolute() / "traefik.yml"
    _write(static_file, static_config(ports["gateway"], ports["limits"], dynamic, chosen))
    _write(
        dynamic / "gateway.yml",
        dynamic_config(table, addresses, ports["limits"], environment, chosen, listed, served),
    )
    return static_file


def addresses_of(ports: Mapping[str, int], instances: Mapping[str, Sequence[int | str]]) -> dict[str, list[str]]:
    """Service → ``host:port`` of its instances. Raises ValueError for a service that is nowhere or unknown."""
    if unknown := sorted(set(instances) - set(OWNERS)):
        raise ValueError(f"no such service: {', '.join(unknown)}")
    addresses = {}
    for owner in OWNERS:
        if owner in instances:
            given: Sequence[int | str] = instances[owner]
        elif owner in ports:
            given = [ports[owner]]
        else:
            raise ValueError(f"neither a port nor instances are given for {owner}")
        addresses[owner] = [f"127.0.0.1:{item}" if isinstance(item, int) else item for item in given]
    return addresses


def static_config(port: int, limits_port: int, dynamic: Path, options: Options) -> dict[str, Any]:
    """The part that Traefik reads once, at start."""
    entry_point: dict[str, Any] = {
        "address": f"{options.listen}:{port}",
        "asDefault": True,
        "transport": {
            # Reading a whole request may take this long (a push over a slow line); answers and open streams are not
            # limited. Idle clients are let go after idleTimeout.
            "respondingTimeouts": {"readTimeout": "600s", "writeTimeout": "0s", "idleTimeout": "90s"},
            "lifeCycle": {"graceTimeOut": "10s"},
        },
        "http": {
            # X_User_Id and X.User.Id are other names than X-User-Id only for some of the programs on the way.
            "aliasHeadersStrategy": "delete",
            "maxHeaderBytes": 65_536,
            # File names in paths may hold an encoded slash or percent; nothing may hold these two.
            "encodedCharacters": {"allowEncodedBackSlash": False, "allowEncodedNullCharacter": False},
        },
        "forwardedHeaders": {"insecure": False, "trustedIPs": list(options.trusted_proxies)},
    }
    config: dict[str, Any] = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {"web": entry_point, "limits": _limits_entry_point(limits_port)},
        # Answers a request that the limits let pass; it has no address of its own.
        "ping": {"manualRouting": True},
        "providers": {
            # Instances come and go together at a restart; two seconds, the default, would be felt.
            "providersThrottleDuration": "200ms",
            "file": {"directory": str(dynamic), "watch": True},
        },
        "log": {"level": options.log_level, "format": "json"},
    }
    if options.access_log != "":
        # Only what is listed: no query string (tokens of WebSockets), no header (credentials), no user name.
        kept = (
            "ClientHost", "DownstreamContentSize", "DownstreamStatus", "Duration", "OriginDuration", "OriginStatus",
            "RequestContentSize", "RequestMethod", "RequestPath", "RequestProtocol", "RetryAttempts", "RouterName",
            "ServiceAddr", "ServiceName", "StartUTC",
        )  # fmt: skip
        config["accessLog"] = {
            "format": "json",
            "bufferingSize": 128,
            "fields": {
                "defaultMode": "drop",
                "names": dict.fromkeys(kept, "keep"),
                "queryParameters": {"defaultMode": "drop"},
                "headers": {"defaultMode": "drop", "names": {"X-Request-Id": "keep"}},
            },
        }
        if options.access_log is not None:
            config["accessLog"]["filePath"] = options.access_log
    if options.metrics_port is not None:
        address = f"{options.metrics_host}:{options.metrics_port}"
        config["entryPoints"]["metrics"] = {"address": address, "http": {"aliasHeadersStrategy": "delete"}}
        config["ping"]["entryPoint"] = "metrics"
        config["metrics"] = {"prometheus": {"entryPoint": "metrics", "addRoutersLabels": True}}
    return config


def _limits_entry_point(port: int) -> dict[str, Any]:
    """Where Traefik asks itself whether a client may send another request; it believes the address that it is told."""
    return {
        "address": f"127.0.0.1:{port}",
        "forwardedHeaders": {"trustedIPs": ["127.0.0.1/32"]},
        "http": {"aliasHeadersStrategy": "delete"},
        "observability": {"accessLogs": False, "metrics": False, "tracing": False},
    }


def dynamic_config(
    routes: Routes,
    addresses: Mapping[str, Sequence[str]],
    limits_port: int,
    environment: str,
    options: Options,
    not_built: Sequence[Operation],
    built: Sequence[Operation],
) -> dict[str, Any]:
    """The part that Traefik follows while it runs: routers, middlewares, services."""
    return {
        "http": {
            "routers": routers(routes, environment, not_built, built) | limit_routers(routes) | _ping_router(options),
            "middlewares": middlewares(routes, options, limits_port),
            "services": services(addresses),
            "serversTransports": {
                "services": {
                    "maxIdleConnsPerHost": 256,
                    # uvicorn closes a connection that was idle for 5 s; whoever closes first avoids that a request is
                    # sent into a connection that is just being closed.
                    "forwardingTimeouts": {"dialTimeout": "2s", "idleConnTimeout": "3s", "responseHeaderTimeout": "0s"},
                }
            },
        }
    }


def _ping_router(options: Options) -> dict[str, Any]:
    """What `traefik healthcheck` asks; routed by hand, for `ping` is the limits' service as well."""
    if options.metrics_port is None:
        return {}
    return {"ping": {"rule": "Path(`/ping`)", "entryPoints": ["metrics"], "service": "ping@internal"}}


def middlewares(routes: Routes, options: Options, limits_port: int) -> dict[str, Any]:
    """Every middleware by name."""
    found: dict[str, Any] = {
        "remove-headers": {"headers": {"customRequestHeaders": dict.fromkeys(routes.removed_request_headers, "")}},
        # Only what Traefik itself answers when a service is gone. A service's own 503 and its Retry-After pass.
        "error-pages": {"errors": {"status": ["502", "504"], "service": EDGE, "query": "/_edge/errors/{status}"}},
        # A length that was declared too large is refused by the number alone. Sent on, the body would meet an edge that
        # has answered and closed: a reset while it is written makes Traefik answer 502 in place of what the edge said.
        "too-large-page": {"errors": {"status": ["413"], "service": EDGE, "query": "/_edge/errors/{status}"}},
        "refuse-body": {"buffering": {"maxRequestBodyBytes": 1}},
        # 502 is Traefik's own answer to a connection that broke before a response began.
        "retry": {"retry": {**RETRY, "status": ["502"], "maxRequestBodyBytes": RETRY_BODY_BYTES}},
        "retry-unsent": {"retry": {**RETRY}},
    }
    for limit in routes.limits:
        bucket = limit.buckets[options.rate_limits]
        # The last address is the client's unless it is a proxy's.
        strategy: dict[str, Any] = {"ipv6Subnet": 64}
        strategy |= {"excludedIPs": list(options.trusted_proxies)} if options.trusted_proxies else {"depth": 1}
        # Asked before the request goes on: a refusal becomes the edge's problem, and a 429 of a service, which an
        # errors middleware around the whole way would replace as well, passes as it is.
        found[f"limit-{limit.name}"] = {
            "forwardAuth": {
                "address": f"http://127.0.0.1:{limits_port}/{limit.name}",
                "trustForwardHeader": True,
                # Without the origin the edge's 429 would bear nothing that lets a browser read it.
                "authRequestHeaders": ["Origin", "X-Request-Id"],
            }
        }
        found[f"refusal-{limit.name}"] = {
            "errors": {"status": ["429"], "service": EDGE, "query": f"/_edge/limited/{bucket.refill_s}"}
        }
        found[f"bucket-{limit.name}"] = {
            "rateLimit": {
                "average": bucket.average,
                "period": bucket.period,
                "burst": bucket.burst,
                "sourceCriterion": {"ipStrategy": strategy},
            }
        }
    return found


def services(addresses: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A service's ready instances; while there is none, those that live; while there is none, the edge."""

    def balancer(owner: str, check: Mapping[str, str] = HEALTH_CHECK) -> dict[str, Any]:
        return {
            "loadBalancer": {
                "servers": [{"url": f"http://{address}"} for address in addresses[owner]],
                "healthCheck": dict(check),
                # The default response forwarding passes event streams and chunked bodies on at once. A shorter flush
                # interval must not be set: Traefik 3.7 then flushes an attempt that it repeats, as a 200.
                "serversTransport": "services",
            }
        }

    def failover(first: str, then: str) -> dict[str, Any]:
        return {"failover": {"service": first, "fallback": then, "healthCheck": {}}}

    found: dict[str, Any] = {EDGE: balancer(EDGE)}
    for owner in SERVICES:
        if not addresses[owner]:
            # A balancer without servers would answer for itself, in plain text.
            found[owner] = balancer(EDGE)
            continue
        found[f"{owner}-instances"] = balancer(owner)
        found[f"{owner}-alive"] = balancer(owner, LIFE_CHECK)
        found[f"{owner}-otherwise"] = failover(f"{owner}-alive", EDGE)
        found[owner] = failover(f"{owner}-instances", f"{owner}-otherwise")
    return found


def _write(path: Path, config: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(config), sort_keys=False, width=160)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
