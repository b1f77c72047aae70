"""The benchmarks' own arithmetic, and their load generator against a server that counts what it gets."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from bench import figures, processes
from bench.figures import Figure, at_least, at_most
from bench.load import Plan, Request, Run, Sender, quantile


def test_only_an_asserted_target_that_is_missed_fails() -> None:
    assert Figure("g", "n", 2.1, "×", at_most(2.0, asserted=True)).failed
    assert not Figure("g", "n", 2.0, "×", at_most(2.0, asserted=True)).failed
    assert not Figure("g", "n", 2.1, "×", at_most(2.0)).failed
    assert not Figure("g", "n", 2.1, "×").failed
    assert Figure("g", "n", 29.0, "/s", at_least(30, asserted=True)).failed


def test_the_table_shows_verdicts_and_the_recorded_value() -> None:
    found = [
        Figure("list", "ratio", 2.5, "×", at_most(2.0, asserted=True)),
        Figure("list", "rate", 1234.0, "/s", at_least(2000)),
        Figure("list", "cost", 15.0, "µs", at_most(20)),
    ]
    lines = figures.table(found, {"list: rate": 1500.0}).splitlines()
    ratio, rate, cost = lines[-3:]
    assert ratio.endswith("FAILED")
    assert "1,234" in rate
    assert "1,500" in rate
    assert rate.endswith("not met")
    assert cost.endswith(" met")


def test_a_part_that_is_recorded_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "BASELINE", tmp_path / "baseline.json")
    assert figures.read_baseline() == {}
    figures.record([Figure("a", "x", 1.0, "µs"), Figure("b", "y", 2.0, "µs")])
    figures.record([Figure("b", "y", 3.0, "µs")])
    assert figures.read_baseline() == {"a: x": 1.0, "b: y": 3.0}


def test_a_rate_is_corrected_for_others_but_never_beyond_what_a_process_can_do() -> None:
    assert processes.alone(1000.0, 1.0, [500.0]) == 1000.0
    assert processes.alone(1000.0, 0.5, [100.0]) == 2000.0
    # One processor does 1,250 items of 800 µs a second.
    assert processes.alone(1000.0, 0.25, [800.0, 100.0]) == 1250.0
    # What was seen counts even where the share was measured badly.
    assert processes.alone(1000.0, 0.25, [2000.0]) == 1000.0


def test_quantiles_of_few_values() -> None:
    assert quantile([], 0.99) == 0.0
    assert quantile([1.0], 0.99) == 1.0
    assert quantile([float(number) for number in range(100)], 0.99) == 99.0


def test_events_have_ids_of_their_own_that_grow() -> None:
    plan = Plan(1, [Request("POST", "/x", {}, '{"events":[@EVENTS@]}')], 1, 1.0, events=50)
    sender = Sender(plan.requests[0], 3, plan, itertools.count(7))
    ids: list[str] = []
    for _ in range(3):
        head, _, body = sender.next().partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        ids += [event["event_id"] for event in json.loads(body)["events"]]
    assert len(ids) == 150
    assert ids == sorted(set(ids))
    assert all(uuid.UUID(one).version == 7 for one in ids)


async def test_every_answer_is_counted_by_its_status() -> None:
    titles: list[str] = []
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while head := await reader.readline():
            length = 0
            while (line := await reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            titles.append(json.loads(await reader.readexactly(length))["title"])
            status = b"200 OK" if b"/good" in head else b"503 Busy"
            # The body comes in two parts: an answer is complete when all of it is there.
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 10\r\n\r\n01234")
            await asyncio.sleep(0.001)
            writer.write(b"56789")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    requests = [Request("POST", path, {}, '{"title":"t@NUMBER@"}') for path in ("/good", "/bad")]
    outcome: dict[str, Any] = await Run(Plan(port, requests, 4, 0.3, warm_s=0.1)).run()
    server.close()
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    await server.wait_closed()
    assert set(outcome["statuses"]) == {"200", "503"}
    assert sum(outcome["statuses"].values()) == outcome["count"] > 0
    assert 0 < outcome["p50_ms"] <= outcome["p99_ms"]
    assert len(titles) == len(set(titles)) >= outcome["count"]
