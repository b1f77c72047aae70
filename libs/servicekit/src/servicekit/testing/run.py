"""What one test run owns outside of its processes: a folder and the servers started in it.

The controller of the run (the only process without pytest-xdist) holds a pipe to a small shell. When that pipe closes,
at the end of the run, after Ctrl-C or when the controller is killed, the shell ends every server recorded in the folder
and removes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = "OMOIOS_TEST_RUN_DIR"

# A server leads its own process group; SIGQUIT is PostgreSQL's immediate shutdown, SIGKILL ends what is left.
_REAPER = """
trap '' INT TERM HUP
cat > /dev/null
for signal in QUIT KILL; do
  for file in "$1"/*.pid; do
    [ -f "$file" ] && kill -s "$signal" -- "-$(cat "$file")" 2> /dev/null
  done
  [ "$signal" = QUIT ] && sleep 0.3
done
rm -rf -- "$1"
"""


@dataclass
class TestRun:
    """The folder of this run, shared by its workers."""

    __test__ = False

    directory: Path
    _reaper: subprocess.Popen[bytes] | None = None

    @classmethod
    def open(cls) -> TestRun:
        """Join the run that the controller opened, or open one."""
        inherited = os.environ.get(_VARIABLE)
        if inherited and Path(inherited).is_dir():
            return cls(Path(inherited))
        # Not pytest's own temporary folder: PostgreSQL started by root runs as a user that cannot pass through it.
        directory = Path(tempfile.mkdtemp(prefix="omoios-test-", dir="/tmp"))
        directory.chmod(0o711)
        os.environ[_VARIABLE] = str(directory)
        reaper = subprocess.Popen(
            ["/bin/sh", "-c", _REAPER, "reaper", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(directory, reaper)

    def close(self) -> None:
        """End the run's servers; only the process that opened the run does."""
        reaper, self._reaper = self._reaper, None
        if reaper is None:
            return
        os.environ.pop(_VARIABLE, None)
        reaper.communicate()

    def record(self, name: str, pid: int) -> None:
        """Have the process group of `pid` ended with the run."""
        (self.directory / f"{name}.pid").write_text(str(pid))

    def forget(self, name: str) -> None:
        """Take back `record`."""
        (self.directory / f"{name}.pid").unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Let one process of the run at a time into the block."""
        with (self.directory / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
