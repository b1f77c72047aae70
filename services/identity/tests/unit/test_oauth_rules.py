"""Whom a provider's profile belongs to, where browsers go, and which addresses are public."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity_service.credentials.rules import is_public
from identity_service.oauth import rules
from identity_service.oauth.rules import Account, Profile, SignIn

VERIFIED = Profile("7", verified_email="ada@example.com")
accounts = st.none() | st.builds(Account, st.booleans(), st.booleans(), st.booleans())


@given(owner=accounts, by_email=accounts, known=st.booleans(), verified=st.booleans())
def test_nobody_gets_in_by_an_unverified_address_or_into_a_closed_account(
    owner: Account | None, by_email: Account | None, known: bool, verified: bool
) -> None:
    profile = VERIFIED if verified else Profile("7")
    decision = rules.decide(owner=owner, identity_known=known, by_email=by_email, profile=profile)
    entered = owner if known else by_email
    if decision in (SignIn.KNOWN, SignIn.LINK, SignIn.TAKE_OVER):
        assert entered is not None
        assert entered.is_active
    if not known:
        assert decision is not SignIn.KNOWN
        assert verified or decision is SignIn.UNVERIFIED
    if decision is SignIn.LINK:
        assert entered is not None
        assert entered.is_verified


@pytest.mark.parametrize(
    ("emails", "expected"),
    [
        ([], None),
        ([{"email": "a@x.de", "verified": False, "primary": True}], None),
        ([{"email": "A@x.de", "verified": True, "primary": False}], "a@x.de"),
        (
            [
                {"email": "a@x.de", "verified": True, "primary": False},
                {"email": "b@x.de", "verified": True, "primary": True},
            ],
            "b@x.de",
        ),
        ([{"email": None, "verified": True}, {"email": "c@x.de", "verified": "true"}], None),
    ],
)
def test_only_verified_addresses_count(emails: list[dict[str, object]], expected: str | None) -> None:
    assert rules.verified_address(emails) == expected


@given(st.text(max_size=50))
def test_what_is_said_stays_one_parameter(text: str) -> None:
    landed = rules.location("https://front.example/callback?x=1", {"error": text})
    assert landed.startswith("https://front.example/callback?x=1&error=")
    assert landed.count("#") == 0
    assert landed.count("&") == 1
    assert landed.isascii()


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_by_itself(address: ipaddress.IPv4Address) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address))
    assert not is_public(f"64:ff9b::{address}")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["224.0.0.1", "255.255.255.255", "192.0.2.1", "fe80::1%eth0", "ff02::1", "::"])
def test_what_is_special_is_not(address: str) -> None:
    assert not is_public(address)
