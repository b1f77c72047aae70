"""The Dockerfiles' own steps, run outside of a container: locked packages, copied sources, commands that start."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import dockerfiles
from tools.dockerfiles import IMAGES, Image

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)


def steps(image: Image, stage: str) -> list[tuple[str, str]]:
    """(instruction, argument) of one stage, continued lines joined."""
    text = (ROOT / image.path).read_text().replace("\\\n", " ")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    [found] = [part for part in stages if part.splitlines()[0].endswith(stage)]
    lines = [line for line in found.splitlines()[1:] if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def copy(argument: str, place: Path) -> None:
    """What COPY does: a folder's content, or files, to a path below ``place``."""
    *sources, target = argument.split()
    into = place / target.lstrip("/")
    for source in sources:
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(path, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, into)


def run(command: str, place: Path) -> None:
    """What RUN does, with the image's absolute paths below ``place`` and a Python that stands for the image's."""
    here = re.sub(r"(?<![\w./-])/(?=(?:venv|bootstrap|requirements|app)\b)", f"{place}/", command)
    # Files come from the cache that `make install` filled, and their bytecode would cost more than all the rest; hashes
    # are checked all the same.
    here = re.sub(r" --(?:no-cache-dir|no-cache|compile-bytecode)\b", "", here)
    here = here.replace("python -m venv", f"{sys.executable} -m venv")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["sh", "-ec", here], env=environment, capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, f"{here}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The first stage, which all images share."""
    place = tmp_path_factory.mktemp("image")
    for instruction, argument in steps(IMAGES[0], "AS packages"):
        {"COPY": copy, "RUN": run}[instruction](argument, place)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_the_files_are_what_the_pattern_says(tmp_path: Path) -> None:
    assert dockerfiles.drifted() == []
    for image in IMAGES:
        (tmp_path / image.path).parent.mkdir(parents=True)
        (tmp_path / image.path).write_text(image.text())
    changed = tmp_path / IMAGES[0].path
    changed.write_text(changed.read_text().replace("USER 10001:10001\n", ""))
    assert dockerfiles.drifted(tmp_path) == [IMAGES[0].path]


def test_every_image_shares_the_stage_of_packages() -> None:
    assert len({str(steps(image, "AS packages")) for image in IMAGES}) == 1


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_runs_without_root_and_knows_its_health(image: Image) -> None:
    text = (ROOT / image.path).read_text()
    final = text.rpartition("\nFROM ")[2]
    assert "USER 10001:10001" in final
    assert "STOPSIGNAL SIGTERM" in final
    assert f'CMD ["python", "-IS", "/app/probe.py", "{image.ports[0]}"]' in final
    assert final.rstrip().endswith(f'CMD ["python", "-m", "{image.module}"]')
    assert "--require-hashes" in text


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_what_an_image_holds_suffices_to_start(image: Image, packages: Path) -> None:
    """The sources stage on top of the locked packages; each module that a container runs imports."""
    shutil.rmtree(packages / "app", ignore_errors=True)
    for instruction, argument in steps(image, "AS sources"):
        if instruction == "COPY":
            copy(argument, packages)
        else:
            assert shlex.split(argument) == ["python", "-m", "compileall", "-q", "/app"]
    others = (
        ["gateway_edge.following"]
        if image.name == "edge"
        else [f"{image.name}_service.worker", "servicekit.db.migrate"]
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(packages / "app" / "src"),
        **dict(entry.replace("/app", str(packages / "app")).split("=") for entry in image.environment),
    }
    code = f"import {', '.join([image.module, *others])}"
    done = subprocess.run(
        [str(packages / "venv" / "bin" / "python"), "-P", "-c", code],
        cwd=packages / "app",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_probe_fails_where_nobody_listens() -> None:
    command = [sys.executable, "-IS", str(ROOT / "deploy/docker/probe.py"), "1"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
