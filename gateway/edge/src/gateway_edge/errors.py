"""Everything the edge can refuse."""

from __future__ import annotations

from servicekit.errors import ErrorSpec, Kind

NOT_FOUND = ErrorSpec("edge.not_found", Kind.NOT_FOUND, "There is nothing at this path.")
NOT_BUILT_YET = ErrorSpec("edge.not_built_yet", Kind.NOT_FOUND, "This operation is not built yet.")
BODY_TOO_LARGE = ErrorSpec("edge.body_too_large", Kind.TOO_LARGE, "The request body is too large.")
RATE_LIMITED = ErrorSpec("edge.rate_limited", Kind.RATE_LIMITED, "Too many requests from this address; try later.")
SERVICE_UNAVAILABLE = ErrorSpec(
    "edge.service_unavailable", Kind.UNAVAILABLE, "The service behind this path does not answer.", 1.0
)
GATEWAY_TIMEOUT = ErrorSpec(
    "edge.gateway_timeout", Kind.DEADLINE, "The service behind this path did not answer in time.", 1.0
)
