"""How a mail is put together and tried again, and what a session's device is called."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity_service.mail import rules
from identity_service.tokens.rules import device_of


def test_pauses_grow_and_stay_below_a_quarter_of_an_hour() -> None:
    pauses = [rules.pause_s(attempts) for attempts in range(1, rules.MAX_ATTEMPTS + 1)]
    assert pauses[:4] == [5.0, 10.0, 20.0, 40.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 900.0
    assert 5 * 3600 < sum(pauses) < 7 * 3600


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_name_adds_no_header(subject: str, name: str) -> None:
    raw = rules.compose(
        mail_id="id",
        sender="OmoiOS <no-reply@omoios.invalid>",
        recipient="ada@example.com",
        subject=rules.one_line(subject),
        text=f"Hello {rules.one_line(name)}",
        html="<p>x</p>",
        moment=datetime(2026, 1, 1, tzinfo=UTC),
    )
    message = message_from_bytes(raw, policy=policy.default)
    assert set(message.keys()) == {
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type")
    }
    assert message["To"] == "ada@example.com"
    assert message["Message-ID"] == "<id@omoios.invalid>"


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (None, "unknown device"),
        ("", "unknown device"),
        ("curl/8.5.0", "curl"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "Chrome on Android"),
    ],
)
def test_devices_are_named_as_people_name_them(user_agent: str | None, device: str) -> None:
    assert device_of(user_agent) == device
