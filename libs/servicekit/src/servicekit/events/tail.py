"""`python -m servicekit.events.tail [subject …]`: events as they pass, one JSON object per line, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import BadSubjectError

from servicekit.clock import to_wire
from servicekit.events.dlq import readable
from servicekit.events.envelope import Event, Permanent
from servicekit.events.registry import SERVICES
from servicekit.events.topology import nats_address


def as_json(subject: str, headers: dict[str, str], payload: bytes) -> str:
    """Return the line of one event; a message without the headers of an event is shown with what it has."""
    try:
        event: Event[Any] = Event(headers, subject, payload)
    except Permanent:
        return json.dumps({"subject": subject, "headers": headers, "body": readable(subject, payload)})
    return json.dumps(
        {
            "time": to_wire(event.time),
            "type": event.type,
            "id": event.id,
            "aggregate": f"{event.aggregate_type}:{event.aggregate_id}",
            "version": event.version,
            "organization_id": event.organization_id,
            "correlation_id": event.correlation_id,
            "causation_id": event.causation_id,
            "body": readable(event.type, payload),
        }
    )


async def follow(subjects: list[str], url: str, credentials: dict[str, Any], write: Callable[[str], None]) -> None:
    """Write each event's line until cancelled; waits for a server that is away. Raises BadSubjectError."""
    client = Client()

    async def tell(error: Exception) -> None:
        print(f"NATS at {url}: {error}", file=sys.stderr, flush=True)

    await client.connect(url, connect_timeout=5, max_reconnect_attempts=-1, error_cb=tell, **credentials)

    async def show(message: Msg) -> None:
        write(as_json(message.subject, dict(message.headers or {}), message.data))

    try:
        for subject in subjects:
            await client.subscribe(subject, cb=show)
        await asyncio.Event().wait()
    finally:
        await client.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the process' exit code."""
    parser = argparse.ArgumentParser(prog="python -m servicekit.events.tail", description=__doc__)
    parser.add_argument("subjects", nargs="*", default=[f"{service}.>" for service in SERVICES])
    options = parser.parse_args(arguments)
    url, credentials = nats_address()
    try:
        asyncio.run(follow(options.subjects, url, credentials, lambda line: print(line, flush=True)))
    except KeyboardInterrupt:
        return 0
    except BadSubjectError:
        print(f"not subjects of NATS: {' '.join(options.subjects)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
