"""The locks: every requirement pinned with a hash, no URL, and one version of everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
LOCKS = ("bootstrap", "base", "dev")


def pins(name: str) -> dict[str, tuple[str, int]]:
    """`name ; marker` → (version, number of hashes)."""
    found: dict[str, tuple[str, int]] = {}
    current = ""
    for line in (REQUIREMENTS / f"{name}.lock").read_text().splitlines():
        pinned = re.fullmatch(r"([A-Za-z0-9._-]+)==([^ ;]+)(?: ; ([^\\]+?))? \\", line)
        if pinned:
            current = f"{pinned[1]} ; {pinned[3]}"
            found[current] = (pinned[2], 0)
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
            found[current] = (found[current][0], found[current][1] + 1)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_pinned_with_a_hash(name: str) -> None:
    locked = pins(name)
    assert locked
    assert all(hashes for _, hashes in locked.values())


@pytest.mark.parametrize("name", LOCKS)
def test_wishes_are_locked(name: str) -> None:
    names = {pin.split(" ;")[0] for pin in pins(name)}
    for line in (REQUIREMENTS / f"{name}.in").read_text().splitlines():
        wish = re.split(r"[\[<>=#]", line)[0].strip().lower()
        if wish and not wish.startswith("-r"):
            assert wish in names


def test_base_and_dev_agree() -> None:
    dev = {pin.split(" ;")[0]: set() for pin in pins("dev")}
    for pin, (version, _) in pins("dev").items():
        dev[pin.split(" ;")[0]].add(version)
    for pin, (version, _) in pins("base").items():
        assert version in dev[pin.split(" ;")[0]], pin
