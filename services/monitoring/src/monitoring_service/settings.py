"""Settings of this service."""

from __future__ import annotations

from pydantic import Field

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The base settings and what only monitoring needs."""

    http_port: int = Field(default=18104, ge=0, le=65535)
    rpc_port: int = Field(default=18204, ge=0, le=65535)

    event_log_hours: int = Field(default=24, ge=1, le=24 * 31)
    """How far back a stream can be resumed; days are dropped whole, up to a day later."""
    streams_max: int = Field(default=10_000, ge=1)
    """Open event streams of one process; further ones are told to come again."""
    streams_per_user_max: int = Field(default=100, ge=1)
    stream_queue_frames: int = Field(default=4_096, ge=1)
    stream_queue_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """What waits for one client at most; a slower one is dropped. Frames are shared between clients."""
    stream_ping_s: float = Field(default=30.0, gt=0)
    """Seconds without a word of the client after which it is pinged; also the pace of re-checking memberships."""
    stream_heartbeat_s: float = Field(default=15.0, gt=0)
    """Seconds between comments on a silent Server-Sent Events stream."""
    stream_poll_s: float = Field(default=1.0, gt=0)
    """How long a lost hint can delay live frames."""
    stream_write_s: float = Field(default=30.0, gt=0)
    """How long one write to a client may take before it is dropped."""
