"""All that is kept of a user, as one JSON document that is written while it is read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from identity_service.audit import service as audit
from identity_service.audit.service import AuditService, Filters
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database
from servicekit.http.paging import MAX_PAGE, KeysetParams

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)

Section = Callable[[Principal], Awaitable[Any]]
"""The caller → what one room keeps of him."""


class ExportService:
    """`sections`: name → what one room keeps; the composition root names them."""

    def __init__(self, db: Database, trail: AuditService, sections: Mapping[str, Section]) -> None:
        self._db = db
        self._trail = trail
        self._sections = sections

    async def export(self, principal: Principal, address: str) -> AsyncIterator[str]:
        """The pieces of the document, in order. Nothing is held in memory but one section, or one page of the trail."""
        async with self._db.uow() as tx:
            await audit.record(tx, "user.exported", actor_id=principal.user_id, address=address)
        return self._pieces(principal)

    async def _pieces(self, principal: Principal) -> AsyncIterator[str]:
        yield '{"exported_at":' + json.dumps(utc_now().isoformat())
        for name, section in self._sections.items():
            yield f",{json.dumps(name)}:" + _json(await section(principal))
        yield ',"audit":['
        token: str | None = None
        first = True
        while True:
            page = await self._trail.list_of_account(
                principal.user_id, Filters(), KeysetParams(page_size=MAX_PAGE, page_token=token)
            )
            for entry in page.items:
                yield ("" if first else ",") + _json(entry)
                first = False
            token = page.next_page_token
            if token is None:
                break
        yield "]}"


def _json(value: Any) -> str:
    return _ANYTHING.dump_json(value).decode()
