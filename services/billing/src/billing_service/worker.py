"""Relay, consumers and jobs as a process of their own."""

from __future__ import annotations

from billing_service.main import build
from billing_service.settings import Settings
from servicekit.host import run

if __name__ == "__main__":
    run(build(Settings()), role="worker")
