"""Names of the call metadata that travels beside every request, and the size limits both ends agree on."""

from __future__ import annotations

AUTHORIZATION = "authorization"
"""`Bearer <service token>` of the calling service."""
SUBJECT = "omoios-subject"
"""Whom the call is made for: `user:<id>`, `sandbox:<id>` …"""
ORGANIZATION = "omoios-organization"
REQUEST = "omoios-request"
CORRELATION = "omoios-correlation"
TRACEPARENT = "traceparent"
STATUS_DETAILS = "grpc-status-details-bin"

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_METADATA_BYTES = 32 * 1024

KEEPALIVE_TIME_MS = 30_000
"""A client pings this often; a server that allowed fewer pings would close the connection (`too_many_pings`)."""
KEEPALIVE_TIMEOUT_MS = 10_000
MIN_PING_INTERVAL_MS = 20_000
"""The server's least interval; below the client's, or both ends would disagree."""
