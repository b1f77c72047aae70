"""`python -m servicekit.events.dlq list|replay`: what could not be handled, and another try.

Reads `OMOIOS_NATS_*`; a replay needs a user that may publish every service's subjects.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import json
import sys
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.errors import NoServersError

from servicekit.events import deadletters
from servicekit.events.deadletters import DeadLetter
from servicekit.events.registry import message_class_of
from servicekit.events.topology import nats_address


def readable(subject: str, payload: bytes) -> Any:
    """Return an event's body as JSON values, its bytes as hexadecimal text where nothing here can read it."""
    message_class = message_class_of(subject)
    if message_class is not None:
        try:
            return MessageToDict(message_class.FromString(payload), preserving_proto_field_name=True)
        except DecodeError:
            pass
    return payload.hex()


def as_json(letter: DeadLetter) -> str:
    """Return one line of `list`."""
    return json.dumps(
        {
            "sequence": letter.sequence,
            "time": letter.time,
            "subject": letter.subject,
            "event_id": letter.event_id,
            "durable": letter.durable,
            "deliveries": letter.deliveries,
            "reason": letter.reason,
            "body": readable(letter.subject, letter.payload),
        }
    )


def wanted(letter: DeadLetter, durable: str, subject: str, sequences: set[int]) -> bool:
    """Tell whether a letter matches the patterns; an empty set of sequences is all."""
    return (
        fnmatch.fnmatchcase(letter.durable, durable)
        and fnmatch.fnmatchcase(letter.subject, subject)
        and (not sequences or letter.sequence in sequences)
    )


async def run(options: argparse.Namespace, url: str, credentials: dict[str, Any]) -> int:
    """List or replay; returns how many letters matched. Raises NoServersError."""
    client = Client()

    async def tried_again(_: Exception) -> None:
        """Keeps the client from logging a traceback for each try; the last one is told."""

    await client.connect(url, connect_timeout=5, max_reconnect_attempts=3, error_cb=tried_again, **credentials)
    count = 0
    try:
        js = client.jetstream(timeout=10)
        async for letter in deadletters.letters(js):
            if not wanted(letter, options.durable, options.subject, set(options.sequence)):
                continue
            if options.command == "replay":
                await deadletters.replay(js, letter)
            print(as_json(letter))
            count += 1
    finally:
        await client.close()
    return count


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m servicekit.events.dlq", description=__doc__)
    made.add_argument("command", choices=["list", "replay"])
    made.add_argument("sequence", nargs="*", type=int, help="only these places in the stream DLQ")
    made.add_argument("--durable", default="*", help="pattern, for example 'billing-*'")
    made.add_argument("--subject", default="*", help="pattern, for example 'workflow.task.*'")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the process' exit code."""
    options = parser().parse_args(arguments)
    url, credentials = nats_address()
    try:
        count = asyncio.run(run(options, url, credentials))
    except NoServersError:
        print(f"NATS does not answer at {url}; does the stack run?", file=sys.stderr)
        return 1
    print(f"{count} dead letters {'replayed' if options.command == 'replay' else 'listed'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
