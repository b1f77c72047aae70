"""Families of refresh tokens on a real database against a naive model: rotations, replays, ends, of several sessions.

Whoever presents a token that is not the newest, nor the one before it within the grace, ends its family and nobody
else's. However often and at once a family is refreshed, it has one living successor.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from identity_service.auth.service import AuthService
from identity_service.envelope.rules import Envelope
from identity_service.mail.service import MailService
from identity_service.settings import Settings
from identity_service.tokens import rules
from identity_service.tokens.service import TokenPair, TokenService
from identity_service.users import service as users
from servicekit.auth import Principal, PrincipalType
from servicekit.db import Database
from servicekit.errors import AppError
from servicekit.ids import new_id
from servicekit.testing.profiles import examples

PLACES = st.integers(0, 4)
"""A session by its number, or the last one where there are fewer."""
_SESSIONS = "SELECT id, generation, end_reason FROM sessions WHERE user_id = ANY($1) ORDER BY id"
_REVOKED = "SELECT principal_id FROM revocations WHERE principal_type = 'session' AND principal_id = ANY($1)"
_REPLAYS = "SELECT count(*) FROM outbox WHERE subject = 'identity.session.replayed.v1' AND aggregate_id = ANY($1)"
_MAILS = "SELECT count(*) FROM mails WHERE template = 'session_replayed' AND recipient = ANY($1)"


class World:
    """The services that hold sessions, on a loop of their own."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        key = base64.b64encode(b"k" * 32).decode()
        chosen = Settings(env="test", database_url=url, database_pool_size=4, envelope_key=key)
        self.db = Database(chosen)
        envelope = Envelope.from_base64(key)
        self.tokens = TokenService(self.db, chosen, envelope, MailService(self.db, chosen, envelope, None))
        # Signing in with a password has tests of its own; it needs a hash and Redis.
        no_passwords: Any = None
        self.auth = AuthService(self.db, self.tokens, no_passwords, no_passwords)
        self.do(self.tokens.ensure_keys())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        async with self.db.uow() as tx:
            return list(await (await tx.connection()).fetch(statement, *arguments))

    async def open(self, user_id: str) -> TokenPair:
        async with self.db.uow() as tx:
            user = await users.find(tx, user_id)
            assert user is not None
            return await self.tokens.open_session(tx, user, address="127.0.0.1", user_agent="Firefox/1")

    async def refreshed(self, token: str) -> str | None:
        """The successor's text; None where the token is refused."""
        try:
            return (await self.tokens.refresh(token, "127.0.0.1")).refresh_token
        except AppError as error:
            if error.code != "identity.bad_refresh_token":
                raise
            return None

    async def at_once(self, token: str, times: int) -> list[str | None]:
        return list(await asyncio.gather(*(self.refreshed(token) for _ in range(times))))

    def close(self) -> None:
        self.do(self.db.close())
        self.loop.close()


@dataclass
class Family:
    """A session in the model: every token that was handed out, the newest last, and why it ended."""

    id: str
    user: str
    tokens: list[str]
    within_grace: bool = True
    ended: str | None = None


class FamilyMachine(RuleBasedStateMachine):
    """Two users with up to five sessions in all."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.users = [new_id(), new_id()]
        self.emails = [f"{one}@example.com" for one in self.users]
        self.world.do(
            self.world.fetch(
                "INSERT INTO users (id, email, is_active) SELECT * FROM unnest($1::text[], $2::text[], $3::bool[])",
                self.users,
                self.emails,
                [True, True],
            )
        )
        self.families: list[Family] = []
        self.replayed = 0
        for user in self.users:
            self.open(user)

    def open(self, user: str) -> None:
        pair = self.world.do(self.world.open(user))
        token = rules.parse(pair.refresh_token)
        assert token is not None
        assert token.generation == 1
        self.families.append(Family(token.session_id, user, [pair.refresh_token]))

    def at(self, place: int) -> Family:
        return self.families[min(place, len(self.families) - 1)]

    def principal(self, family: Family) -> Principal:
        return Principal(PrincipalType.USER, family.user, session_id=family.id)

    def end(self, family: Family, reason: str) -> None:
        family.ended = family.ended or reason

    def check(self) -> None:
        """Generations, ends, revocations and what was told are the model's."""
        rows = self.world.do(self.world.fetch(_SESSIONS, self.users))
        expected = {one.id: (len(one.tokens), one.ended) for one in self.families}
        assert {row["id"]: (row["generation"], row["end_reason"]) for row in rows} == expected
        ids = list(expected)
        revoked = {row["principal_id"] for row in self.world.do(self.world.fetch(_REVOKED, ids))}
        assert revoked == {one.id for one in self.families if one.ended}, "the access tokens of an ended family die"
        for statement, of in ((_REPLAYS, ids), (_MAILS, self.emails)):
            assert self.world.do(self.world.fetch(statement, of))[0][0] == self.replayed

    @precondition(lambda self: len(self.families) < 5)
    @rule(user=st.integers(0, 1))
    def sign_in(self, user: int) -> None:
        self.open(self.users[user])
        self.check()

    @rule(place=PLACES, tabs=st.sampled_from([1, 1, 1, 2, 3]))
    def refresh(self, place: int, tabs: int) -> None:
        """The client, in one tab or in several at the same moment."""
        family = self.at(place)
        answers = self.world.do(self.world.at_once(family.tokens[-1], tabs))
        if family.ended:
            assert set(answers) == {None}
        else:
            (successor,) = set(answers)
            token = rules.parse(successor or "")
            assert token is not None
            assert (token.session_id, token.generation) == (family.id, len(family.tokens) + 1)
            family.tokens.append(successor)
            family.within_grace = True
        self.check()

    @rule(place=PLACES, back=st.sampled_from([1, 1, 1, 2, 3]))
    def present_an_old_one(self, place: int, back: int) -> None:
        """A tab that was late, or a thief."""
        family = self.at(place)
        if len(family.tokens) <= back:
            return
        answer = self.world.do(self.world.refreshed(family.tokens[-1 - back]))
        if not family.ended and back == 1 and family.within_grace:
            assert answer == family.tokens[-1], "the same successor, not a second one"
        else:
            assert answer is None
            if not family.ended:
                self.replayed += 1
                self.end(family, "refresh_token_reuse")
        self.check()

    @rule(place=PLACES)
    def the_grace_passes(self, place: int) -> None:
        family = self.at(place)
        self.world.do(
            self.world.fetch("UPDATE sessions SET rotated_at = rotated_at - interval '1 day' WHERE id = $1", family.id)
        )
        family.within_grace = False
        self.check()

    @rule(place=PLACES, kind=st.sampled_from(["mac", "generation", "session", "text"]))
    def present_what_was_never_given(self, place: int, kind: str) -> None:
        """What is not genuine ends nothing: else anybody could sign everybody out."""
        family = self.at(place)
        _, generation, mac = family.tokens[-1].split(".")
        forged = {
            "mac": f"omr_{family.id}.{generation}.{mac[::-1]}",
            "generation": f"omr_{family.id}.{int(generation) - 1}.{mac}",
            "session": f"omr_{new_id()}.{generation}.{mac}",
            "text": family.id,
        }[kind]
        assert self.world.do(self.world.refreshed(forged)) is None
        self.check()

    @rule(place=PLACES, how=st.sampled_from(["logout", "end_session", "foreign", "everywhere"]))
    def sign_out(self, place: int, how: str) -> None:
        family, auth = self.at(place), self.world.auth
        own = [one for one in self.families if one.user == family.user and not one.ended]
        if how == "logout":
            self.world.do(auth.logout(self.principal(family), None))
            self.end(family, "logout")
        elif how == "everywhere":
            assert self.world.do(auth.logout_everywhere(self.principal(family), None)) == len(own)
            for one in own:
                self.end(one, "logout_everywhere")
        else:
            other = next(one for one in self.families if one.user != family.user)
            caller = other if how == "foreign" else family
            work = auth.end_session(self.principal(caller), family.id, None)
            if how == "foreign" or family.ended:
                with pytest.raises(AppError) as refused:
                    self.world.do(work)
                assert refused.value.code == "identity.session_not_found"
            else:
                self.world.do(work)
                self.end(family, "ended")
        self.check()


@pytest.fixture
def world(database: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The seconds of the real grace could pass within an example on a slow machine; the rules' own tests have them.
    monkeypatch.setattr(rules, "GRACE_S", 3600.0)
    made = World(database("identity").url)
    yield made
    made.close()


@pytest.mark.timeout(300)
def test_any_sequence_leaves_one_living_successor(world: World) -> None:
    class Machine(FamilyMachine):
        pass

    Machine.world = world
    run_state_machine_as_test(
        Machine,
        # To make a failing example small takes minutes here: add Phase.shrink by hand.
        settings=settings(max_examples=examples(25), phases=[Phase.generate]),
    )
