"""Runs the checks of `make check`, two at a time, and prints what each found.

python -m tools.run_checks              all checks
python -m tools.run_checks rooms mypy   the named ones
python -m tools.run_checks --list       their names
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SOURCES = ("libs", "services", "gateway", "deploy", "tools", "bench")


@dataclass(frozen=True)
class Check:
    name: str
    command: tuple[str, ...]
    what: str


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)


def _tree(name: str) -> tuple[str, ...]:
    return _python("-m", "tools.run_checks", "--tree", name)


# The longest first, so that two at a time end together.
CHECKS = (
    Check("mypy", (str(BIN / "mypy"),), "types; strict in libs, rules and services"),
    Check(
        "access", _python("-m", "tools.catalogue", "access"), "every operation, RPC and consumer has an access entry"
    ),
    Check("events", _python("-m", "tools.catalogue", "events"), "every event has a consumer or a reason"),
    Check(
        "topology",
        _python("-m", "servicekit.events.topology", "check"),
        "deploy/nats/topology.yaml is what the services say",
    ),
    Check(
        "openapi", _python("-m", "gateway_edge.openapi", "check"), "gateway/openapi.json is what the services declare"
    ),
    Check("coverage", _python("-m", "tools.coverage", "check"), "every operation of the contract is served or pending"),
    Check("imports", (str(BIN / "lint-imports"), "--no-cache"), "services independent, the kit below them"),
    Check("contracts", _python("-m", "tools.proto", "check"), "libs/contracts is what proto/ says"),
    Check("buf-lint", _python("-m", "tools.proto", "lint"), "style of proto/"),
    Check("buf-breaking", _python("-m", "tools.proto", "breaking"), "proto/ stays compatible with main"),
    Check("rooms", _tree("rooms"), "what a file of a room may import and do"),
    Check("dependencies", _tree("dependencies"), "each package declares what it imports"),
    Check("ruff", (str(BIN / "ruff"), "check", "--no-cache", "--quiet", "."), "lint"),
    Check(
        "format",
        (str(BIN / "ruff"), "format", "--no-cache", "--quiet", "--check", "--output-format=concise", "."),
        "layout",
    ),
    Check("file-budget", _tree("file_budget"), "300 lines warn, 500 fail"),
    Check("marks", _tree("marks"), "no unfinished marks"),
    Check("hosts", _tree("hosts"), "no registry host, no path of one machine"),
    Check("links", _tree("links"), "links of the documentation lead somewhere"),
)


def run_tree(name: str, root: Path) -> int:
    """Run one check of the `checks` package; warnings are printed and do not fail."""
    findings = importlib.import_module(f"tools.checks.{name}").check(root)
    for finding in findings:
        print(finding)
    return int(any(not finding.warning for finding in findings))


def run(check: Check) -> tuple[Check, int, float, str]:
    started = time.monotonic()
    done = subprocess.run(
        check.command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return check, done.returncode, time.monotonic() - started, done.stdout.strip()


def run_all(checks: Sequence[Check], workers: int = 2) -> int:
    failed = []
    with ThreadPoolExecutor(workers) as pool:
        for check, code, seconds, output in pool.map(run, checks):
            print(f"{'FAIL' if code else 'ok  '}  {check.name:<13} {seconds:5.1f} s  {check.what}", flush=True)
            if code:
                failed.append(check.name)
            if output and (code or "warning" in output):
                print("\n".join(f"      {line}" for line in output.splitlines()), flush=True)
    print(
        f"{len(checks) - len(failed)} checks passed, {len(failed)} failed"
        + (f": {', '.join(failed)}" if failed else "")
    )
    return int(bool(failed))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="print the names of the checks")
    parser.add_argument("--tree", metavar="NAME", help="run one module of tools/checks in this process")
    parser.add_argument("--root", type=Path, default=ROOT, help="tree for --tree; this repository by default")
    options = parser.parse_args(argv)
    if options.tree:
        return run_tree(options.tree, options.root)
    if options.list:
        for check in CHECKS:
            print(f"{check.name:<13} {check.what}")
        return 0
    unknown = set(options.names) - {check.name for check in CHECKS}
    if unknown:
        parser.error(f"no such check: {', '.join(sorted(unknown))}; see --list")
    return run_all([check for check in CHECKS if not options.names or check.name in options.names])


if __name__ == "__main__":
    sys.exit(main())
