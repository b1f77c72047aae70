from __future__ import annotations

import pytest

from servicekit.auth.testing import Signing


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    import time

    return Clock(time.time())


@pytest.fixture
def keypair() -> Signing:
    return Signing()
