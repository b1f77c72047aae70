"""Sealed values, passwords and API keys."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity_service.auth import rules
from identity_service.auth.adapters import Argon2Passwords
from identity_service.envelope.rules import Envelope, SealBroken
from servicekit.errors import AppError


@pytest.fixture(scope="module")
def envelope() -> Envelope:
    return Envelope.from_base64(base64.b64encode(os.urandom(32)).decode())


@given(value=st.binary(max_size=200), flip=st.integers(min_value=0, max_value=10_000))
def test_a_sealed_value_opens_and_a_changed_one_does_not(value: bytes, flip: int) -> None:
    envelope = Envelope(b"k" * 32)
    sealed = envelope.seal(value, "column")
    assert envelope.open(sealed, "column") == value
    broken = bytearray(sealed)
    broken[flip % len(broken)] ^= 1
    with pytest.raises(SealBroken):
        envelope.open(bytes(broken), "column")


def test_a_value_opens_for_its_purpose_and_key_only(envelope: Envelope) -> None:
    sealed = envelope.seal(b"secret", "one")
    with pytest.raises(SealBroken):
        envelope.open(sealed, "another")
    with pytest.raises(SealBroken):
        Envelope(b"x" * 32).open(sealed, "one")
    with pytest.raises(SealBroken):
        envelope.open(b"short", "one")


def test_the_first_key_seals_and_every_key_opens() -> None:
    old, new = Envelope(b"o" * 32), Envelope(b"n" * 32)
    both = Envelope(b"n" * 32, b"o" * 32)
    sealed = old.seal(b"secret", "one")
    assert both.open(sealed, "one") == b"secret"
    again = both.resealed(sealed, "one")
    assert again is not None
    assert new.open(again, "one") == b"secret"
    assert both.resealed(again, "one") is None
    with pytest.raises(SealBroken):
        old.open(again, "one")
    with pytest.raises(SealBroken):
        both.resealed(sealed, "another")
    assert both.derive("a", b"1") == [*new.derive("a", b"1"), *old.derive("a", b"1")]


def test_derived_keys_differ_by_purpose_and_salt(envelope: Envelope) -> None:
    keys = {envelope.derive(purpose, salt)[0] for purpose in ("a", "b") for salt in (b"1", b"2")}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("password", "fits"),
    [
        ("Str0ng!pass", True),
        ("Sh0rt!a", False),
        ("alllower1!", False),
        ("ALLUPPER1!", False),
        ("NoDigits!!", False),
        ("NoSpecial11", False),
        ("A1!" + "a" * 98, False),
    ],
)
def test_password_rules(password: str, fits: bool) -> None:
    assert (rules.password_problem(password) is None) is fits


def test_a_password_made_of_the_address_is_seen() -> None:
    assert rules.contains_own_name("Margaret1!", "margaret1@example.com")
    assert not rules.contains_own_name("Margaret-likes-7-tulips!", "margaret1@example.com")


async def test_hashes_verify_and_unknown_accounts_take_the_same_path() -> None:
    passwords = Argon2Passwords(threads=1, queue=2)
    try:
        stored = await passwords.hash("Str0ng!pass")
        assert await passwords.verify(stored, "Str0ng!pass")
        assert not await passwords.verify(stored, "other")
        assert not await passwords.verify(None, "Str0ng!pass")
        assert not await passwords.verify("not a hash", "Str0ng!pass")
        assert not passwords.needs_rehash(stored)
    finally:
        passwords.close()


async def test_more_sign_ins_than_may_wait_are_refused_at_once() -> None:
    passwords = Argon2Passwords(threads=1, queue=0)
    try:
        import asyncio

        results = await asyncio.gather(*(passwords.hash("Str0ng!pass") for _ in range(3)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, AppError)]
        assert [error.code for error in refused] == ["identity.busy"] * 2
    finally:
        passwords.close()


def test_api_keys_are_long_and_their_shown_part_is_short() -> None:
    key = rules.new_api_key()
    assert key.startswith("omk_")
    assert len(key) == 47
    assert len(rules.digest_of(key)) == 32
    assert len(key[: rules.API_KEY_SHOWN]) == 12


def test_provider_attributes_are_reserved_and_hidden() -> None:
    attributes: dict[str, object] = {"theme": "dark", "github_access_token": "t", "github_user_id": "1"}
    assert rules.reserved_attributes(attributes) == ["github_access_token", "github_user_id"]
    assert rules.visible_attributes(attributes) == {"theme": "dark"}
