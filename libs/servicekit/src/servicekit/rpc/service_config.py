"""The service config of a channel, written from the method descriptors.

Only methods whose proto option says `idempotency_level = NO_SIDE_EFFECTS` are retried, and only on UNAVAILABLE. The
policy must stand below `methodConfig`: at the top level gRPC ignores it without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool

RETRY_POLICY: dict[str, Any] = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
RETRY_THROTTLING: dict[str, Any] = {"maxTokens": 10, "tokenRatio": 0.1}
"""While more than half of the calls fail no retry is sent: a peer in trouble is not given more work."""


def is_idempotent(method: str) -> bool:
    """Whether `/package.Service/Method` declares that it has no side effects. Unknown methods do not."""
    try:
        descriptor = descriptor_pool.Default().FindMethodByName(method.lstrip("/").replace("/", "."))
    except KeyError:
        return False
    options = descriptor.GetOptions()
    return bool(options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS)


def service_config(methods: Iterable[str]) -> str:
    """The config in JSON for a channel on which these methods (`/package.Service/Method`) are called."""
    names = []
    for method in sorted(set(methods)):
        if is_idempotent(method):
            service, _, name = method.lstrip("/").partition("/")
            names.append({"service": service, "method": name})
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if names:
        config["methodConfig"] = [{"name": names, "retryPolicy": RETRY_POLICY}]
        config["retryThrottling"] = RETRY_THROTTLING
    return json.dumps(config, separators=(",", ":"))
