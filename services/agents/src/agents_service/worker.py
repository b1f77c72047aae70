"""The worker: outbox relay, consumers and jobs of this service."""

from __future__ import annotations

from agents_service.main import build
from agents_service.settings import Settings
from servicekit.host import run

if __name__ == "__main__":
    run(build(Settings()), role="worker")
