"""What the services say of themselves: built without a connection, then read.

python -m tools.catalogue events            fail when an event has neither a consumer nor a reason
python -m tools.catalogue events --print    the event map: subject, who listens
python -m tools.catalogue access            fail when an operation, RPC or consumer has no access entry
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from servicekit.auth.access import AccessTable, AccessTableMismatch
from servicekit.db.event_options import EventType, event_type
from servicekit.describe import describe as build_described
from servicekit.events.bus import Bus
from servicekit.events.registry import SERVICES, events_of
from servicekit.events.worker import consumers_of
from servicekit.host import Service

SUBJECT = re.compile(r"[a-z]+\.[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*\.v[1-9]\d*")


@dataclass(frozen=True)
class Listener:
    service: str
    consumer: str
    subjects: tuple[str, ...]
    used: tuple[str, ...] | None = None
    """What it makes more of than a record of its passing; None for all that it hears."""

    def uses(self, subject: str) -> bool:
        """Whether it hears `subject` and the event means something to it."""
        return self.hears(subject) and (self.used is None or subject in self.used)

    def hears(self, subject: str) -> bool:
        """Whether one of the filter subjects (`workflow.task.ready.v1`, `workflow.>`) takes `subject`."""
        return any(
            subject == wanted or (wanted.endswith(".>") and subject.startswith(wanted[:-1])) for wanted in self.subjects
        )


def describe(names: Iterable[str] = SERVICES) -> tuple[dict[str, Service], list[str]]:
    """Build services as their processes would, without starting anything. Returns them, and why others cannot be."""
    services, findings = {}, []
    for name in names:
        try:
            built = build_described([name])
        except Exception as error:
            findings.append(f"{name}: cannot be built: {type(error).__name__}: {error}")
            continue
        if built:
            services[name] = built[0]
        else:
            findings.append(f"{name}: {name}_service.main is not there")
    return services, findings


def listeners(services: Iterable[Service]) -> list[Listener]:
    """The durable consumers; of one that hears a whole stream only what it says it uses counts."""
    return [
        Listener(
            service.name,
            group.name,
            tuple(source.subjects),
            None if source.fallback is None else tuple(sorted({*source.handlers, *source.used})),
        )
        for service in services
        for group in consumers_of(service)
        for source in group.sources.values()
    ]


def followers(services: Iterable[Service]) -> list[Listener]:
    """Who follows which events live, without a durable."""
    return [
        Listener(service.name, "live", tuple(cast("Bus", service.bus).live_subjects))
        for service in services
        if service.bus is not None
    ]


def event_types() -> list[EventType]:
    return [event_type(message) for name in SERVICES for _, message in sorted(events_of(name).items())]


def event_findings(events: Iterable[EventType], heard_by: Sequence[Listener]) -> Iterator[str]:
    """Events that nobody hears without a reason, reasons that are out of date, subjects that no event has."""
    known = set()
    for event in events:
        known.add(event.subject)
        heard = [listener for listener in heard_by if listener.uses(event.subject)]
        if not heard and not event.audit_only:
            yield f"{event.subject}: nothing consumes it; add a consumer, or audit_only with the reason in proto/"
        if heard and event.audit_only:
            yield f"{event.subject}: audit_only says {event.audit_only!r}, but {heard[0].service} consumes it"
        if not SUBJECT.fullmatch(event.subject):
            yield f"{event.subject}: a subject is <service>.<aggregate>.<past_tense>.v<N>"
    for listener in heard_by:
        for subject in listener.subjects:
            if subject not in known and not subject.endswith(".>"):
                yield f"{listener.service}/{listener.consumer} listens to {subject}, which no proto declares"


def event_map(events: Iterable[EventType], heard_by: Sequence[Listener]) -> Iterator[str]:
    for event in events:
        heard = sorted({f"{one.service}/{one.consumer}" for one in heard_by if one.uses(event.subject)})
        reason = [f"audit only: {event.audit_only}"] if event.audit_only else []
        yield f"{event.subject:<48} → {', '.join([*heard, *reason])}"


def access_findings(services: Mapping[str, Service]) -> Iterator[str]:
    """Differences between what a service serves and its access table."""
    from servicekit.http.app import create_app

    for name, service in services.items():
        try:
            create_app(service)
        except (AccessTableMismatch, ValueError) as error:
            yield f"{name}: {error}"
        table = cast("AccessTable", service.access)
        try:
            table.check_rpcs({method for servicer in service.servicers for method in servicer.methods()})
        except AccessTableMismatch as error:
            yield f"{name}: {error}"
        registered = {group.name for group in service.consumers}
        listed = set(table.consumers)
        for missing in sorted(registered - listed):
            yield f"{name}: consumer {missing} has no entry in the access table"
        for extra in sorted(listed - registered):
            yield f"{name}: the access table lists consumer {extra}, which nothing registers"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["events", "access"])
    parser.add_argument("--print", action="store_true", dest="show", help="print the map as well")
    options = parser.parse_args(argv)
    services, findings = describe()
    if options.what == "events":
        heard_by = [*listeners(services.values()), *followers(services.values())]
        if options.show:
            print("\n".join(event_map(event_types(), heard_by)))
        findings += event_findings(event_types(), heard_by)
    else:
        findings += access_findings(services)
    for finding in findings:
        print(finding, file=sys.stderr)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
