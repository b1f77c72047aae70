"""Refresh tokens: form, proof, and the decisions over a family's life."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from identity_service.tokens import rules
from identity_service.tokens.rules import Refresh

KEY = b"k" * 32


def test_a_token_is_parsed_into_what_it_was_made_of() -> None:
    text = rules.encode(KEY, "0190-session", 7)
    token = rules.parse(text)
    assert token is not None
    assert (token.session_id, token.generation) == ("0190-session", 7)
    assert rules.is_genuine(token, KEY)
    assert not rules.is_genuine(token, b"x" * 32)


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused_without_an_error(text: str) -> None:
    token = rules.parse(text)
    assert token is None or not rules.is_genuine(token, KEY)


def test_the_proof_belongs_to_session_and_generation() -> None:
    token = rules.parse(rules.encode(KEY, "s", 1))
    assert token is not None
    assert not rules.is_genuine(rules.RefreshToken("s", 2, token.mac), KEY)
    assert not rules.is_genuine(rules.RefreshToken("t", 1, token.mac), KEY)


class Family(RuleBasedStateMachine):
    """A family with an honest client, a thief who copied some token, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.current = 1
        self.rotated_at = 0.0
        self.ended = False
        self.successors: dict[int, set[int]] = {}

    def present(self, generation: int) -> Refresh:
        decision = rules.decide(
            presented=generation,
            current=self.current,
            rotated_ago_s=self.now - self.rotated_at,
            ended=self.ended,
            expired=False,
        )
        if decision is Refresh.ROTATE:
            self.current, self.rotated_at = generation + 1, self.now
            self.successors.setdefault(generation, set()).add(self.current)
        elif decision is Refresh.REPEAT:
            self.successors.setdefault(generation, set()).add(self.current)
        elif decision is Refresh.REPLAYED:
            self.ended = True
        return decision

    @rule(seconds=st.floats(min_value=0, max_value=30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def the_client_refreshes(self) -> None:
        expected = Refresh.DEAD if self.ended else Refresh.ROTATE
        assert self.present(self.current) is expected

    @rule(back=st.integers(min_value=1, max_value=5))
    def an_old_token_is_presented(self, back: int) -> None:
        generation = self.current - back
        was_ended, age = self.ended, self.now - self.rotated_at
        decision = self.present(generation)
        if was_ended:
            assert decision is Refresh.DEAD
        elif back == 1 and age <= rules.GRACE_S:
            assert decision is Refresh.REPEAT
        else:
            assert decision is Refresh.REPLAYED
            assert self.ended

    @invariant()
    def no_generation_has_two_successors(self) -> None:
        assert all(len(successors) == 1 for successors in self.successors.values())


TestFamily = Family.TestCase
