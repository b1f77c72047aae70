"""Health check of `gateway_edge.following`: ends with 0 when it has looked at DNS within ten seconds.

Run as `python -IS recent.py DIRECTORY`, without site packages, for it is started every few seconds.
"""

import sys
import time
from pathlib import Path

STAMP = "looked.at"
RECENT_S = 10.0


def recent(directory: Path) -> bool:
    """Whether the stamp in this directory is young enough."""
    try:
        return time.time() - (directory / STAMP).stat().st_mtime < RECENT_S
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(not recent(Path(sys.argv[1])))
