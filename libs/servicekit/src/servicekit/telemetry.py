"""Metrics (Prometheus) and traces (OpenTelemetry).

One registry per process. Traces are off without an endpoint: then no span is made, and a ``traceparent`` that came in
is still handed on, so that a trace does not break at a service that does not record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from servicekit import context
from servicekit.settings import ServiceSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_collectors: dict[str, Any] = {}


def _once(name: str, make: Callable[[], Any]) -> Any:
    collector = _collectors.get(name)
    if collector is None:
        collector = _collectors[name] = make()
    return collector


def histogram(name: str, help: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = _SECONDS) -> Histogram:
    """The histogram of this name, made at the first call. Labels are few and bounded: never an id."""
    found: Histogram = _once(name, lambda: Histogram(name, help, labels, registry=REGISTRY, buckets=buckets))
    return found


def counter(name: str, help: str, labels: tuple[str, ...] = ()) -> Counter:
    """The counter of this name, made at the first call."""
    found: Counter = _once(name, lambda: Counter(name, help, labels, registry=REGISTRY))
    return found


def gauge(name: str, help: str, labels: tuple[str, ...] = ()) -> Gauge:
    """The gauge of this name, made at the first call; ``.set_function(f)`` reads a value at each scrape."""
    found: Gauge = _once(name, lambda: Gauge(name, help, labels, registry=REGISTRY))
    return found


def exposition() -> bytes:
    """Everything measured, in the Prometheus text format."""
    return generate_latest(REGISTRY)


_provider: TracerProvider | None = None
_tracer: Tracer | None = None


def setup_tracing(settings: ServiceSettings, service: str, exporter: Any = None) -> None:
    """Starts recording traces when ``otlp_endpoint`` is set or an ``exporter`` is given (tests: in-memory).

    Spans go to ``<otlp_endpoint>/v1/traces`` in batches, or to the given exporter at once.
    """
    global _provider, _tracer
    if settings.otlp_endpoint is None and exporter is None:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as Provider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    provider = Provider(
        resource=Resource.create({"service.name": service, "service.instance.id": settings.instance}),
        shutdown_on_exit=False,
    )
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        assert settings.otlp_endpoint is not None
        endpoint = settings.otlp_endpoint.rstrip("/") + "/v1/traces"
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _provider, _tracer = provider, provider.get_tracer("servicekit")


def shutdown_tracing() -> None:
    """Sends what is left and stops recording."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        provider.shutdown()


def tracing() -> bool:
    """Whether spans are recorded."""
    return _tracer is not None


def valid_traceparent(value: str) -> bool:
    """Whether ``value`` is a version 00 W3C trace context."""
    return _TRACEPARENT.fullmatch(value) is not None


def _remote_parent(value: str) -> Any:
    from opentelemetry import trace

    if not valid_traceparent(value):
        return None
    span_context = trace.SpanContext(
        trace_id=int(value[3:35], 16),
        span_id=int(value[36:52], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(value[53:55], 16)),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(span_context))


def traceparent_of(span: Span) -> str:
    """The W3C trace context of a span as text."""
    span_context = span.get_span_context()
    return f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{int(span_context.trace_flags):02x}"


@contextmanager
def span(
    name: str,
    *,
    kind: str = "internal",
    parent: str | None = None,
    attributes: Mapping[str, str | int | float | bool] | None = None,
) -> Iterator[Span | None]:
    """A span around the block; yields None when nothing is recorded.

    ``kind``: ``server``, ``client``, ``producer``, ``consumer``, ``internal``. ``parent``: a traceparent that came in
    (of a request, a call's metadata, an event's header); without it the span is a child of
    ``context.traceparent``. Inside the block ``context.traceparent`` is the new span's, ready to be sent along.
    An exception marks the span as failed and goes on.
    """
    incoming = context.traceparent.get() if parent is None else parent
    tracer = _tracer
    if tracer is None:
        if parent is None or parent == context.traceparent.get():
            yield None
            return
        token = context.traceparent.set(parent if valid_traceparent(parent) else "")
        try:
            yield None
        finally:
            context.traceparent.reset(token)
        return
    started = start_span(tracer, name, kind, incoming, attributes)
    token = context.traceparent.set(traceparent_of(started))
    try:
        yield started
    except BaseException as error:
        fail_span(started, error)
        raise
    finally:
        started.end()
        context.traceparent.reset(token)


def start_span(
    tracer: Tracer,
    name: str,
    kind: str,
    parent: str,
    attributes: Mapping[str, str | int | float | bool] | None = None,
) -> Span:
    """A started span; the caller ends it."""
    return tracer.start_span(
        name, context=_remote_parent(parent) or _no_parent(), kind=_kind(kind), attributes=dict(attributes or {})
    )


def fail_span(span: Span, error: BaseException) -> None:
    """Marks a span as failed by the type of an error; its text may hold a secret and stays out."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


def current_tracer() -> Tracer | None:
    """The tracer, None when nothing is recorded."""
    return _tracer


def inject(carrier: MutableMapping[str, str]) -> None:
    """Adds ``traceparent`` to headers or metadata that leave this process."""
    if value := context.traceparent.get():
        carrier["traceparent"] = value


def extract(carrier: Mapping[str, str]) -> str:
    """The ``traceparent`` of headers or metadata that came in, ``""`` without a valid one."""
    value = carrier.get("traceparent") or ""
    return value if valid_traceparent(value) else ""


def _no_parent() -> Any:
    from opentelemetry.context import Context

    return Context()


def _kind(kind: str) -> SpanKind:
    from opentelemetry.trace import SpanKind as Kind

    return Kind[kind.upper()]
