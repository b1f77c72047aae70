"""Errors, ids, clock, context, settings, logging, spans."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from servicekit import clock, context, ids, telemetry
from servicekit import logging as kit_logging
from servicekit.context import RemoteCallInTransaction
from servicekit.errors import AccessRefused, AppError, ErrorSpec, Kind, invalid, invalid_fields
from servicekit.settings import ServiceSettings

SPEC = ErrorSpec("kit.missing", Kind.NOT_FOUND, "Missing.", 2.0)


def test_a_spec_makes_errors() -> None:
    error = SPEC("Item 7 is missing.", item_id=7, none=None)
    assert isinstance(error, AppError)
    assert (error.code, error.detail, error.kind) == ("kit.missing", "Item 7 is missing.", Kind.NOT_FOUND)
    assert error.meta == {"item_id": "7"}
    assert error.retry_after_s == 2.0
    assert SPEC(retry_after_s=9).retry_after_s == 9
    assert isinstance(SPEC.refused(), AccessRefused)
    assert SPEC.refused().kind is Kind.NOT_FOUND


def test_invalid_names_the_field() -> None:
    error = invalid(("items", 0, "name"), "must not be empty", "", type="too_short", ctx={"min": 1})
    assert error.kind is Kind.INVALID
    assert [item.as_dict() for item in error.fields] == [
        {
            "type": "too_short",
            "loc": ["body", "items", 0, "name"],
            "msg": "must not be empty",
            "input": "",
            "ctx": {"min": 1},
        }
    ]
    assert invalid("q", "no", where="query").fields[0].loc == ("query", "q")
    assert invalid_fields([]).code == "request.invalid"


def test_every_kind_has_its_statuses() -> None:
    assert {kind.name: kind.status for kind in Kind} == {
        "INVALID": 422,
        "REFUSED": 400,
        "UNAUTHENTICATED": 401,
        "PAYMENT_REQUIRED": 402,
        "FORBIDDEN": 403,
        "NOT_FOUND": 404,
        "CONFLICT": 409,
        "GONE": 410,
        "TOO_LARGE": 413,
        "RATE_LIMITED": 429,
        "UNAVAILABLE": 503,
        "DEADLINE": 504,
        "INTERNAL": 500,
    }
    import grpc

    for kind in Kind:
        assert hasattr(grpc.StatusCode, kind.grpc_code)
        assert Kind.from_label(kind.label) is kind
    assert Kind.from_label("later") is Kind.INTERNAL


def test_ids_are_uuid7_in_order() -> None:
    made = [ids.new_id() for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == 5000
    found = UUID(made[0])
    assert (found.version, found.variant) == (7, UUID(int=0x80 << 56).variant)
    assert abs((found.int >> 80) / 1000 - clock.utc_now().timestamp()) < 5
    assert ids.new_id("project-").startswith("project-0")
    assert ids.is_uuid(made[0])
    assert not any(map(ids.is_uuid, ["", "x" * 36, made[0][:-1], "{" + made[0][1:-1] + "}", made[0].replace("-", "")]))


def test_ids_of_threads_do_not_collide() -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [ids.new_id() for _ in range(2000)], range(8)))
    assert len({item for batch in batches for item in batch}) == 16_000


def test_ids_stay_in_order_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids.new_id()
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1)
    after = [ids.new_id() for _ in range(100)]
    assert [before, *after] == sorted([before, *after])


def test_times_on_the_wire() -> None:
    assert clock.to_wire(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05Z"
    east = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2)))
    assert clock.to_wire(east) == "2026-01-02T01:04:05.000006Z"
    with pytest.raises(ValueError, match="zone"):
        clock.to_wire(datetime(2026, 1, 2))  # noqa: DTZ001
    assert clock.utc_now().tzinfo is UTC


async def test_the_transaction_marker_ends_for_tasks_started_inside_it() -> None:
    context.assert_no_transaction("before")
    release = asyncio.Event()

    async def child() -> bool:
        with pytest.raises(RemoteCallInTransaction, match="vcs was called while the unit of work was open"):
            context.assert_no_transaction("vcs")
        await release.wait()
        context.assert_no_transaction("vcs")
        return context.transaction_is_open()

    with context.in_transaction():
        assert context.transaction_is_open()
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    release.set()
    assert await task is False


def test_bind_restores() -> None:
    with context.bind(request="r", correlation="c", subject="user:1"):
        assert (context.request_id.get(), context.correlation_id.get()) == ("r", "c")
        with context.bind(correlation="d"):
            assert (context.request_id.get(), context.correlation_id.get()) == ("r", "d")
        assert context.origin_subject.get() == "user:1"
    assert context.request_id.get() == context.correlation_id.get() == ""


class Settings(ServiceSettings):
    http_port: int = 18109
    color: str = "blue"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    import os

    for name in list(os.environ):
        if name.startswith("OMOIOS_"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_settings_from_the_environment_and_files(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    environment.setenv("OMOIOS_COLOR", "red")
    environment.setenv("OMOIOS_RPC_TARGETS", '{"identity": "127.0.0.1:18201"}')
    environment.setenv("OMOIOS_SERVICE_SECRET_FILE", str(secret))
    environment.setenv("OMOIOS_SOMETHING_ELSE", "of another service")
    environment.setenv("OMOIOS_DATABASE_URL", "postgresql://kit:hunter2@127.0.0.1:1/kit")
    settings = Settings()
    assert (settings.http_port, settings.color) == (18109, "red")
    assert settings.rpc_targets == {"identity": "127.0.0.1:18201"}
    assert settings.service_secret is not None
    assert settings.service_secret.get_secret_value() == "s3cret"
    assert "hunter2" not in repr(settings)
    assert "s3cret" not in repr(settings)
    environment.setenv("OMOIOS_SERVICE_SECRET_FILE", str(tmp_path / "nothing"))
    with pytest.raises(SettingsError) as failure:
        Settings()
    assert "OMOIOS_SERVICE_SECRET_FILE cannot be read" in str(failure.value.__cause__)


def test_a_dotenv_file_knows_only_known_names(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    environment.setenv("OMOIOS_DOTENV", str(dotenv))
    dotenv.write_text("OMOIOS_COLOR=green\n")
    assert Settings().color == "green"
    dotenv.write_text("OMOIOS_COLOUR=green\n")
    with pytest.raises(ValidationError, match="colour"):
        Settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cors_origins": ["*"]}, "every origin must be named"),
        ({"database_url": "postgresql+asyncpg://x"}, "no driver"),
        ({"envelope_key": "short"}, "envelope_key"),
        ({"envelope_key": base64.b64encode(b"x" * 31).decode()}, "32 bytes"),
        ({"env": "staging"}, "env"),
        ({"rpc_port": 70000}, "rpc_port"),
        ({"unknown": 1}, "unknown"),
        ({"outbox_days": 7}, "greater than 7"),
        ({"outbox_days": 8, "inbox_days": 14}, "inbox_days .14. must be at least outbox_days .8. . 7"),
        ({"outbox_days": 10}, "inbox_days .16. must be at least outbox_days .10. . 7"),
    ],
)
def test_bad_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**values)


def test_production_is_strict_by_default(environment: pytest.MonkeyPatch) -> None:
    assert (Settings().rate_limits, Settings().trusted_proxies) == ("loose", ["127.0.0.1", "::1"])
    environment.setenv("OMOIOS_ENV", "production")
    strict = Settings()
    assert (strict.rate_limits, strict.trusted_proxies, strict.is_production) == ("contract", [], True)
    environment.setenv("OMOIOS_RATE_LIMITS", "loose")
    environment.setenv("OMOIOS_TRUSTED_PROXIES", '["10.0.0.0/8"]')
    assert (Settings().rate_limits, Settings().trusted_proxies) == ("loose", ["10.0.0.0/8"])


def test_log_lines_hold_no_secret(capfdbinary: Any) -> None:
    kit_logging.configure(ServiceSettings(env="test", instance="i-1"), "kit")
    log = kit_logging.get_logger("kit.test")
    with context.bind(request="r-1", correlation="c-1"):
        log.info(
            "hello",
            password="hunter2",
            nested={"Authorization": "Bearer hunter2", "items": [{"api_key": "hunter2"}], "tokens": 17, "task_id": "t"},
            url="postgresql://kit:hunter2@127.0.0.1/x",
            big=10**30,
            raw=b"hunter2",
            bad="\ud800",
            nan=float("nan"),
        )
    log.debug("not shown")
    out = capfdbinary.readouterr().out
    assert b"hunter2" not in out
    (line,) = [orjson.loads(item) for item in out.splitlines()]
    assert line["event"] == "hello"
    assert (line["request_id"], line["correlation_id"], line["service"], line["instance"]) == (
        "r-1",
        "c-1",
        "kit",
        "i-1",
    )
    assert line["nested"]["task_id"] == "t"
    assert line["level"] == "info"


def test_the_standard_library_takes_the_same_way(capfdbinary: Any) -> None:
    import logging

    kit_logging.configure(ServiceSettings(env="test"), "kit")
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("it %s", "failed")
    logging.getLogger("uvicorn.access").info("GET /?token=hunter2")
    (line,) = [orjson.loads(item) for item in capfdbinary.readouterr().out.splitlines()]
    assert (line["event"], line["module"], line["level"]) == ("it failed", "uvicorn.error", "error")
    assert "ValueError: no" in line["exception"]


def test_a_log_reader_that_is_gone_does_no_harm() -> None:
    import os

    kit_logging.configure(ServiceSettings(env="test"), "kit")
    saved = os.dup(1)
    reader, writer = os.pipe()
    try:
        os.close(reader)
        os.dup2(writer, 1)
        kit_logging.get_logger("kit.test").info("nobody reads this")
    finally:
        os.dup2(saved, 1)
        os.close(writer)
        os.close(saved)


PARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


def test_without_an_endpoint_a_trace_is_handed_on() -> None:
    assert not telemetry.tracing()
    with telemetry.span("x", kind="server", parent=PARENT) as span:
        carrier: dict[str, str] = {}
        telemetry.inject(carrier)
        assert span is None
        assert carrier == {"traceparent": PARENT}
        with telemetry.span("y"):
            assert context.traceparent.get() == PARENT
    with telemetry.span("x", kind="server", parent="nonsense"):
        assert context.traceparent.get() == ""
    assert context.traceparent.get() == ""


def test_spans_nest_and_failures_hide_their_text() -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    telemetry.setup_tracing(ServiceSettings(env="test"), "kit", exporter)
    try:
        with pytest.raises(ValueError), telemetry.span("call", kind="server", parent=PARENT):
            with telemetry.span("inner", attributes={"n": 1}):
                carrier: dict[str, str] = {}
                telemetry.inject(carrier)
            raise ValueError("hunter2")
    finally:
        telemetry.shutdown_tracing()
    inner, call = exporter.get_finished_spans()
    assert call.parent is not None
    assert call.parent.span_id == int("2" * 16, 16)
    assert inner.parent is not None
    assert inner.parent.span_id == call.context.span_id
    assert carrier["traceparent"] == f"00-{'1' * 32}-{inner.context.span_id:016x}-01"
    assert call.attributes is not None
    assert call.attributes["error.type"] == "ValueError"
    assert "hunter2" not in call.to_json()
    assert call.resource.attributes["service.name"] == "kit"


@pytest.mark.parametrize("value", ["", "00-" + "0" * 32 + "-" + "2" * 16 + "-01", PARENT.upper() + "x", PARENT + "\n"])
def test_a_bad_traceparent_is_no_traceparent(value: str) -> None:
    assert telemetry.extract({"traceparent": value}) == ""
    assert telemetry.extract({"traceparent": PARENT}) == PARENT


def test_collectors_are_made_once() -> None:
    first = telemetry.counter("kit_test_total", "x", ("kind",))
    assert telemetry.counter("kit_test_total", "x", ("kind",)) is first
    first.labels("a").inc()
    telemetry.gauge("kit_test_depth", "x").set_function(lambda: 7)
    text = telemetry.exposition().decode()
    assert 'kit_test_total{kind="a"} 1.0' in text
    assert "kit_test_depth 7.0" in text
