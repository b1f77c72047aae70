"""`python -m agents_service.runners.main`: one runner, until SIGTERM or SIGINT.

Exit status 0 after a stop, 1 when the API refuses this runner, 2 for wrong settings.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from agents_service.runners.adapters import Refused
from agents_service.runners.folders_adapters import hide_environment
from agents_service.runners.service import Runner
from agents_service.runners.settings_adapters import RunnerSettings, load


async def serve(settings: RunnerSettings) -> None:
    """Run until a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Runner(settings).run(stop)


def main() -> int:
    """The command."""
    try:
        settings = load()
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    hide_environment()
    try:
        asyncio.run(serve(settings))
    except Refused as error:
        logging.getLogger(__name__).error("refused: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
