"""Where the data lies that the edge and the configuration renderer read."""

from __future__ import annotations

import os
from pathlib import Path

# This file is <root>/gateway/edge/src/gateway_edge/layout.py; an image with another layout names the root.
ROOT = Path(os.environ.get("OMOIOS_ROOT") or Path(__file__).resolve().parents[4])

ROUTES = ROOT / "gateway" / "routes.yaml"
OPENAPI = ROOT / "gateway" / "openapi.json"
PENDING = ROOT / "tools" / "coverage" / "pending.txt"
ASSETS = Path(__file__).resolve().parent / "assets"
