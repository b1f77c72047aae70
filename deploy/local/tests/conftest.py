"""Directories that every user may pass through: PostgreSQL runs as another user when root runs the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from omoios_local.embedded.process import scratch_directory


@pytest.fixture
def scratch() -> Iterator[Path]:
    with scratch_directory("omoios-test-") as directory:
        yield directory
