"""A serving process starts other programs: vcs runs git while it answers RPCs."""

import subprocess
import sys
from pathlib import Path

SERVER = Path(__file__).with_name("forking_server.py")


def test_programs_started_while_grpc_serves_are_not_killed():
    done = subprocess.run([sys.executable, str(SERVER)], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0"
