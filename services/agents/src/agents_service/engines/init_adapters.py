"""The first process of a sandbox's command: confines it, starts it, and takes everything down with it.

Run as `python -I -S init_adapters.py` with one JSON object on its input: `{argv, cwd, env, uid, gid, limits, parent}`.
It survives nothing: it dies with the runner (also when that is killed), and before it ends it kills every process that
descends from the command, those included that left the process group or were disowned. It uses the standard library
only, for it starts in the interpreter's isolated mode.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from typing import Any

# From linux/prctl.h.
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

KILL_ROUNDS = 50


def prctl(option: int, value: int) -> None:
    """Sets an attribute of this process where the kernel has it; other systems go without."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        return


def descendants(root: int) -> list[int]:
    """Every living process below `root`; empty where /proc is absent."""
    parents: dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    stat = file.read()
            except OSError:
                continue
            fields = stat.rpartition(b")")[2].split()
            if fields[0] not in (b"Z", b"X"):
                parents[int(name)] = int(fields[1])
    found: list[int] = []
    frontier = {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - set(found)
        found += sorted(frontier)
    return found


def kill_all(child: int) -> None:
    """Kills the command's process group and every descendant, until none is left."""
    for _ in range(KILL_ROUNDS):
        for send, target in ((os.killpg, child), *((os.kill, pid) for pid in descendants(os.getpid()))):
            try:
                send(target, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def confine(order: dict[str, Any]) -> None:
    """Limits, identity and environment of the command; runs in the child before it becomes the command."""
    os.setsid()
    os.umask(0o022)
    for name, value in order["limits"].items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (limit, limit))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if order["uid"] is not None:
        os.setgroups([])
        os.setgid(order["gid"])
        os.setuid(order["uid"])
    os.chdir(order["cwd"])


def main() -> int:
    """Runs the order; the exit code is the command's, 128 + signal when one ended it."""
    order = json.loads(sys.stdin.buffer.read())
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    stopping = False
    child = 0

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        if child:
            kill_all(child)
        os._exit(143)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if os.getppid() != order["parent"]:
        return 143
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            confine(order)
            os.execvpe(order["argv"][0], order["argv"], order["env"])
        except BaseException as error:
            os.write(2, f"cannot start {order['argv'][0]}: {error}\n".encode())
            os._exit(127)
    status = 0
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except InterruptedError:
            continue
        if pid == child:
            break
    kill_all(child)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
