"""The import-linter contracts of the root pyproject.toml, applied to a small tree of packages with the real names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Plant = Callable[[Mapping[str, str]], Path]
ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("identity", "workflow", "agents", "monitoring", "billing", "vcs")

LAWFUL = {
    "servicekit/__init__.py": "",
    "servicekit/auth.py": "from omoios.identity import v1\nfrom omoios.options import v1 as options\n",
    "gateway_edge/__init__.py": "import servicekit\n",
    "omoios/__init__.py": "",
    "omoios/options/__init__.py": "",
    "omoios/options/v1.py": "",
    **{f"omoios/{name}/__init__.py": "" for name in SERVICES},
    **{f"omoios/{name}/v1.py": "" for name in SERVICES},
    **{f"{name}_service/__init__.py": "" for name in SERVICES},
    "vcs_service/merging/__init__.py": "",
    "vcs_service/merging/routes.py": "from vcs_service.merging import service\n",
    "vcs_service/merging/service.py": "import omoios.workflow.v1\nfrom vcs_service.merging import adapters, store\n",
    "vcs_service/merging/store.py": "from servicekit import auth\n",
    "vcs_service/merging/adapters.py": "",
}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "lint-imports")
    return subprocess.run(
        [program, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_lawful_tree_passes(plant: Plant) -> None:
    done = lint(plant(LAWFUL))
    assert done.returncode == 0, done.stdout
    assert "4 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "text", "contract"),
    [
        ("vcs_service/merging/rules.py", "import workflow_service\n", "Services and the edge never import each other"),
        ("gateway_edge/pages.py", "from vcs_service.merging import service\n", "Services and the edge never import"),
        ("servicekit/db.py", "import identity_service\n", "The kit knows no service"),
        ("servicekit/db.py", "from omoios.billing import v1\n", "Of the contracts the kit uses identity's"),
        ("vcs_service/merging/routes.py", "from vcs_service.merging import store\n", "Entries reach data through"),
        (
            "vcs_service/merging/consumers.py",
            "from vcs_service.merging import adapters\n",
            "Entries reach data through",
        ),
    ],
)
def test_planted_import_breaks_its_contract(plant: Plant, file: str, text: str, contract: str) -> None:
    done = lint(plant({**LAWFUL, file: text}))
    assert done.returncode == 1, done.stdout
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken), done.stdout
