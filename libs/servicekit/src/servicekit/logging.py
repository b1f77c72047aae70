"""Structured logs: one JSON object a line on stdout, secrets removed, the running request's ids added.

``get_logger(__name__).info("claimed", task_id=task_id)``. Lines of the standard library's ``logging`` (uvicorn,
SQLAlchemy, nats) take the same way.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

import orjson
import structlog

from servicekit import context
from servicekit.settings import ServiceSettings

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)|secret|token$|_token|^tokens?$|authorization|cookie|api_?key|private_?key|envelope_?key|"
    r"credential|^jwt$|^dsn$|signature",
    re.IGNORECASE,
)
_URL_SECRET = re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)@")
_MAX_DEPTH = 8
_INT_64 = 1 << 63

_static: dict[str, str] = {}
_fast = False


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def clean(value: Any, max_text: int = 8_192, _depth: int = 0) -> Any:
    """``value`` made fit for a log line or an error body.

    Secrets are removed by name, credentials in URLs too, long text is cut, and what JSON cannot hold becomes text.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        text = _URL_SECRET.sub(rf"\1:{REDACTED}@", value) if "://" in value else value
        if len(text) > max_text:
            text = text[:max_text] + "…"
        return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int):
        return int(value) if -_INT_64 <= value < _INT_64 else f"integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if _depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {
            clean(str(name), max_text): REDACTED
            if item is not None and is_secret_name(str(name))
            else clean(item, max_text, _depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item, max_text, _depth + 1) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, datetime):
        return value.isoformat()
    return clean(str(value), max_text, _depth)


def _stamp(_logger: Any, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    line["level"] = level
    line["time"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line.update(_static)
    if request_id := context.request_id.get():
        line.setdefault("request_id", request_id)
    correlation_id = context.correlation_id.get()
    if correlation_id and correlation_id != line.get("request_id"):
        line.setdefault("correlation_id", correlation_id)
    if trace := context.traceparent.get():
        line.setdefault("trace_id", trace[3:35])
    return line


def _redact(_logger: Any, _level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return cast("MutableMapping[str, Any]", clean(line))


def _render(_logger: Any, _level: str, line: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS)


class _Stdout:
    """Writes lines to file descriptor 1: one system call each, so that lines of several threads do not mix.

    A reader that is gone must not end the service, so what cannot be written is dropped.
    """

    def msg(self, line: bytes | str) -> None:
        left = memoryview((line.encode("utf-8", "replace") if isinstance(line, str) else line) + b"\n")
        try:
            while left:
                left = left[os.write(1, left) :]
        except OSError:
            return

    log = debug = info = warn = warning = error = err = exception = critical = fatal = failure = msg


_STDOUT = _Stdout()


def _stdout(*_arguments: Any) -> _Stdout:
    return _STDOUT


class _StandardLibrary(logging.Handler):
    """Hands a record of the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
            structlog.get_logger().log(
                min(record.levelno, logging.CRITICAL),
                record.getMessage(),
                module=record.name,
                **({"exc_info": exc_info} if exc_info else {}),
            )
        except Exception:
            self.handleError(record)


def configure(settings: ServiceSettings, service: str) -> None:
    """Sets logging up for this process: JSON, or readable text with ``log_format=console``."""
    _static.clear()
    _static.update(service=service, instance=settings.instance)
    level = logging.getLevelNamesMapping()[settings.log_level]
    global _fast
    _fast = settings.log_format == "json" and level <= logging.INFO
    processors: list[Any] = [_stamp, structlog.processors.format_exc_info, _redact]
    if settings.log_format == "console":
        processors.append(structlog.dev.ConsoleRenderer(colors=False, timestamp_key="time", event_key="event"))
    else:
        processors.append(_render)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_stdout,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_StandardLibrary()]
    root.setLevel(max(level, logging.INFO))
    # At INFO uvicorn.error tells the address of each WebSocket, with the token in its query.
    for noisy in ("uvicorn.access", "uvicorn.error", "httpx2", "httpcore2", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def request_line(fields: dict[str, Any]) -> None:
    """Writes the line of one HTTP request at INFO.

    It takes a shorter way than other lines, because it is written for each request: the names are the edge's own, and
    of the values only the path comes from outside.
    """
    if not _fast:
        structlog.get_logger().info("request", **fields)
        return
    fields["event"] = "request"
    fields["level"] = "info"
    fields["time"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields.update(_static)
    if trace := context.traceparent.get():
        fields["trace_id"] = trace[3:35]
    _STDOUT.msg(orjson.dumps(fields))


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry ``module: name``."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(module=name))
