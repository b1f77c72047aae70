"""Relay, consumers and jobs as a process of their own."""

from __future__ import annotations

from servicekit.host import run
from workflow_service.main import build
from workflow_service.settings import Settings

if __name__ == "__main__":
    run(build(Settings()), role="worker")
