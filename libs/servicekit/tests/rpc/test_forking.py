"""A serving process starts other programs: vcs runs git while it answers RPCs."""

import subprocess
import sys
from pathlib import Path

SERVER = Path(__file__).with_name("forking_server.py")


def test_programs_started_while_grpc_serves_are_not_killed():
    # The kit is imported before grpc, as in every service.
    started = f"import servicekit, runpy; runpy.run_path({str(SERVER)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", started], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0"
