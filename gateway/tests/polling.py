"""Waiting for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx2
import pytest


def eventually(check: Callable[[], bool], what: str, timeout_s: float = 12.0) -> None:
    """Waits until ``check`` holds; fails with ``what`` after the time."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.03)


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=1.0).status_code == 200
    except httpx2.HTTPError:
        return False
