"""Whether a service answers as its OpenAPI document says, by requests that schemathesis makes from the document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from servicekit.host import Running
from servicekit.http.openapi import openapi_document
from servicekit.testing.profiles import examples

CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
EXAMPLES = 8
_JSON = {"media_type": "application/json"}
# What takes rows away comes after what needs them.
ORDER = ("get", "post", "put", "patch", "delete")


@dataclass
class Conformance:
    """What came of the requests: answers by operation and status, and what contradicts the document."""

    answers: dict[str, Counter[int]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def succeeded(self) -> set[str]:
        """Operations with at least one answer of 2xx."""
        return {name for name, found in self.answers.items() if any(200 <= status < 300 for status in found)}

    @property
    def unreached(self) -> set[str]:
        """Operations that were called and never answered 2xx."""
        return self.answers.keys() - self.succeeded

    def __str__(self) -> str:
        lines = [f"{len(self.succeeded)} of {len(self.answers)} operations answered 2xx at least once"]
        lines += [f"{name}: {dict(sorted(found.items()))}" for name, found in sorted(self.answers.items())]
        return "\n".join(lines + [f"{name}: {what}" for name, what in sorted(self.failures.items())])


async def conformance(
    running: Running,
    headers: Mapping[str, str],
    rows: Mapping[str, str],
    *,
    excluded: Mapping[str, str],
    known: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    last: Sequence[str] = (),
) -> Conformance:
    """Calls every operation of the service EXAMPLES times, with the same made-up values in each run of a profile.

    `headers`: the caller's. `rows`: name of a parameter or field → the id of a row that exists; every second request
    has them in the places of these names, the others what schemathesis makes up. `excluded`: operation id → the reason
    why it is not called. `known`: operation id → the `path_parameters`, `query` and `body` of a request that succeeds,
    made before the others where making it up is a matter of luck. `last`: ids of operations that end
    the caller's session or give his rows away, in their order.

    Raises ValueError for an id that no operation has.
    """
    document = openapi_document(running.service)
    schema = schemathesis.openapi.from_dict(document)
    operations = [one.ok() for one in schema.get_all_operations()]
    by_id = {one.definition.raw["operationId"]: one for one in operations}
    if strangers := {*excluded, *known, *last} - by_id.keys():
        raise ValueError(f"there is no operation {', '.join(sorted(strangers))}")
    found = Conformance()
    early = sorted(by_id.keys() - {*excluded, *last}, key=lambda one: (ORDER.index(by_id[one].method.lower()), one))
    for name in [*early, *last]:
        counted = found.answers.setdefault(name, Counter())
        sure = [by_id[name].Case(**_JSON, **known[name])] if name in known else []
        for number, case in enumerate([*sure, *_cases(by_id[name])], start=-len(sure)):
            _complete(case, headers, rows if number >= 0 and number % 2 == 0 else {})
            answer = await _send(running, case)
            counted[answer.status_code] += 1
            try:
                case.validate_response(answer, checks=CHECKS)
            except FailureGroup as failure:
                found.failures.setdefault(name, str(failure))
    return found


def _cases(operation: Any) -> list[Any]:
    made: list[Any] = []

    @settings(
        max_examples=examples(EXAMPLES),
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def collect(case: Any) -> None:
        made.append(case)

    collect()
    return made


def _complete(case: Any, headers: Mapping[str, str], rows: Mapping[str, str]) -> None:
    """Lets the caller call, and puts rows that exist in the places that name them."""
    case.cookies.clear()
    if rows:
        # The made-up keys are short and repeat themselves: a key that was used hides the operation.
        case.headers.pop("Idempotency-Key", None)
    case.headers.update(headers)
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            part.update({name: rows[name] for name in part if name in rows})


async def _send(running: Running, case: Any) -> Any:
    prepared = requests.Request(**case.as_transport_kwargs(base_url=running.service.settings.public_url)).prepare()
    running.http.cookies.clear()
    return await running.http.request(
        prepared.method or "GET", prepared.url or "", headers=dict(prepared.headers), content=prepared.body
    )
