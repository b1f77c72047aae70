from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.convergence.harness import Convergence


@pytest.fixture
def convergence(database: Any, nats_server: Any, tmp_path: Path) -> Convergence:
    """Deliveries to the consumers of any service."""
    return Convergence(database, nats_server.url, tmp_path)
