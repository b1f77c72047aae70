"""Queueing and sending mails."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from urllib.parse import urlencode

from identity_service.envelope import service as resealing
from identity_service.envelope.rules import Envelope, SealBroken
from identity_service.mail import rules, store
from identity_service.mail.adapters import (
    DeliveryUnknown,
    Letters,
    MailConnection,
    MailRefused,
    MailServer,
    MailServerAway,
)
from identity_service.mail.tables import Mail
from identity_service.settings import Settings
from servicekit import telemetry
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.ids import new_id
from servicekit.logging import get_logger

_log = get_logger(__name__)

_PURPOSE = "mail-context"
# A run of the job ends well before its timeout, so that a long queue is never cut off in the middle of a mail.
_RUN_S = 30.0
KEPT = timedelta(days=30)


class MailService:
    """Mails of this service: `queue` in one's own transaction, `send_due` as a leader's job.

    Without a mail server (`server` None) a mail is kept as `suppressed`, without its content, and nothing is sent:
    `enabled` tells the callers, who then ask nobody to verify an address.
    """

    def __init__(self, db: Database, settings: Settings, envelope: Envelope, server: MailServer | None) -> None:
        self._db = db
        self._settings = settings
        self._envelope = envelope
        self._server = server
        self._letters = Letters()
        self.queued = db.hint("identity_mails")
        self._outcomes = telemetry.counter("mails_total", "Mails by how an attempt ended.", ("outcome",))

    @property
    def enabled(self) -> bool:
        """Whether there is a mail server."""
        return self._server is not None

    def link(self, path: str, **query: str) -> str:
        """An address of the web client, for a mail."""
        return f"{self._settings.frontend_url}{path}" + (f"?{urlencode(query)}" if query else "")

    async def queue(
        self,
        tx: Tx,
        template: str,
        to: str,
        context: Mapping[str, str],
        dedupe_key: str,
        *,
        useful_for: timedelta = timedelta(hours=24),
        deliver: bool = True,
    ) -> None:
        """Queues one mail in the caller's transaction; a known `dedupe_key` queues nothing.

        `context`: exactly the values that `rules.TEMPLATES` lists for the template, else ValueError. It is stored
        encrypted until the mail was sent. `useful_for`: how long it is worth being sent.
        `deliver` False does the same work and sends nothing: what a stranger asks about an address must cost the same
        whether or not it has an account.
        """
        problem = rules.context_problem(template, context)
        if problem is not None:
            raise ValueError(problem)
        values = json.dumps({name: rules.one_line(value) for name, value in context.items()})
        sealed = self._envelope.seal(values.encode(), _PURPOSE)
        goes_out = deliver and self.enabled
        await store.add(
            tx,
            id=new_id(),
            dedupe_key=dedupe_key,
            template=template,
            recipient=to,
            sealed_context=sealed if goes_out else None,
            state="queued" if goes_out else "suppressed",
            expires_at=utc_now() + useful_for,
        )
        # For a mail that never goes out, too: its question must cost the same.
        tx.on_commit(self.queued.committed)

    async def send_due(self) -> None:
        """Sends what is due, one after another. To be run by one instance at a time."""
        if self._server is None:
            return
        async with self._db.uow() as tx:
            queued, uncertain = await store.recover(tx)
            expired = await store.expire(tx)
        if queued or uncertain or expired:
            _log.warning("mails_recovered", queued_again=queued, uncertain=uncertain, expired=expired)
        ends_at = time.monotonic() + _RUN_S
        async with self._server.connection() as connection:
            while time.monotonic() < ends_at:
                async with self._db.uow() as tx:
                    mail = await store.claim(tx)
                if mail is None or not await self._send(connection, mail):
                    return

    async def forget(self, tx: Tx, address: str) -> None:
        """Deletes what was or would be sent to an address whose account is erased, in the caller's transaction."""
        await store.forget(tx, address)

    async def purge(self) -> None:
        """Drops mails that were done with a month ago: they name addresses."""
        async with self._db.uow() as tx:
            await store.purge(tx, KEPT)

    async def counts(self) -> Mapping[str, int]:
        """State → how many mails are in it."""
        async with self._db.reader() as tx:
            return await store.counts(tx)

    async def unsent(self, limit: int) -> Sequence[Mail]:
        """Mails that nobody got for certain (failed, uncertain, expired), the latest first."""
        async with self._db.reader() as tx:
            return await store.list_in(tx, ("failed", "uncertain", "expired"), limit)

    async def _send(self, connection: MailConnection, mail: Mail) -> bool:
        """One attempt. Returns False when the server is away, so that the rest waits for the next run."""
        message = self._message(mail)
        if message is None:
            await self._end(mail, "failed", "the mail cannot be composed; the log says why")
            return True
        try:
            await connection.offer(self._settings.mail_from_address, mail.recipient)
        except MailRefused as error:
            await self._again(mail, str(error), give_up=error.permanent)
            return True
        except MailServerAway as error:
            await self._again(mail, str(error))
            return False
        async with self._db.uow() as tx:
            ours = await store.move(tx, mail.id, mail.attempts, ("sending",), "transmitting")
        if not ours:
            # This process slept so long that another one leads by now and has taken the mail over.
            await connection.withdraw()
            return True
        try:
            await connection.transmit(message)
        except MailRefused as error:
            await self._again(mail, str(error), give_up=error.permanent)
            return True
        except DeliveryUnknown as error:
            await self._end(mail, "uncertain", str(error))
            return False
        await self._end(mail, "sent", None)
        return True

    def _message(self, mail: Mail) -> bytes | None:
        try:
            if mail.sealed_context is None:
                raise SealBroken("the mail has no content")
            context = json.loads(self._envelope.open(mail.sealed_context, _PURPOSE))
            letter = self._letters.fill(mail.template, context)
            return rules.compose(
                mail_id=mail.id,
                sender=self._settings.mail_from,
                recipient=mail.recipient,
                subject=letter.subject,
                text=letter.text,
                html=letter.html,
                moment=mail.created_at,
            )
        except Exception:
            # One mail that cannot be written must not stop the others.
            _log.exception("mail_not_composed", mail_id=mail.id, template=mail.template)
            return None

    async def _again(self, mail: Mail, error: str, *, give_up: bool = False) -> None:
        if give_up or mail.attempts >= rules.MAX_ATTEMPTS:
            await self._end(mail, "failed", error)
            return
        self._outcomes.labels("retried").inc()
        _log.warning("mail_retried", mail_id=mail.id, template=mail.template, attempts=mail.attempts, error=error)
        async with self._db.uow() as tx:
            states = ("sending", "transmitting")
            await store.retry_later(tx, mail.id, mail.attempts, states, rules.pause_s(mail.attempts), error)

    async def _end(self, mail: Mail, state: str, error: str | None) -> None:
        self._outcomes.labels(state).inc()
        report = _log.info if state == "sent" else _log.error
        report("mail_" + state, mail_id=mail.id, template=mail.template, attempts=mail.attempts, error=error)
        async with self._db.uow() as tx:
            # `uncertain` is what another leader made of it while this process slept: now it is known.
            states = ("sending", "transmitting", "uncertain")
            await store.move(tx, mail.id, mail.attempts, states, state, last_error=error, sealed_context=None)


async def reseal(db: Database, envelope: Envelope) -> int:
    """Seals under the present envelope key what an earlier one sealed; returns how many values."""
    return await resealing.reseal(db, envelope, Mail.sealed_context, lambda _: _PURPOSE)
