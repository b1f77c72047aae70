"""Generates libs/contracts from proto/, and checks that what is committed is what the protos say.

python -m tools.proto write       regenerate libs/contracts/src/omoios
python -m tools.proto check       fail when the committed code differs from freshly generated code
python -m tools.proto lint        buf lint
python -m tools.proto breaking    buf breaking against the main branch and the newest release tag
"""

from __future__ import annotations

import argparse
import filecmp
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
CONTRACTS = ROOT / "libs" / "contracts" / "src"
PACKAGE = "omoios"


class ProtoError(Exception):
    """A step failed; the message is what the user needs to read."""


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ProtoError(f"{name} is not installed; run `make install`")
    return found


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProtoError((done.stdout + done.stderr).strip())


def sources(proto: Path) -> list[Path]:
    return sorted(proto.glob(f"{PACKAGE}/**/*.proto"))


def generate(proto: Path, out: Path) -> None:
    """Write the Python code of every proto below `proto` to `out`/omoios: messages, gRPC code, stubs, package files."""
    import grpc_tools
    from grpc_tools import protoc

    files = sources(proto)
    if not files:
        raise ProtoError(f"no .proto file below {proto}")
    out.mkdir(parents=True, exist_ok=True)
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{proto}",
        f"-I{well_known}",
        f"--plugin=protoc-gen-mypy={_tool('protoc-gen-mypy')}",
        f"--plugin=protoc-gen-mypy_grpc={_tool('protoc-gen-mypy_grpc')}",
        f"--python_out={out}",
        f"--mypy_out=quiet:{out}",
        *[str(file) for file in files],
    ]
    if protoc.main(arguments):
        raise ProtoError("protoc failed for the messages")
    services = [str(file) for file in files if "\nservice " in "\n" + file.read_text()]
    if services and protoc.main(
        [*arguments[:5], f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services]
    ):
        raise ProtoError("protoc failed for the services")
    package = out / PACKAGE
    for folder in [
        package,
        *sorted(path for path in package.rglob("*") if path.is_dir() and path.name != "__pycache__"),
    ]:
        (folder / "__init__.py").write_text("")
    (package / "py.typed").write_text("")


def _generated(root: Path) -> Iterator[Path]:
    for path in sorted((root / PACKAGE).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(root)


def write(proto: Path = PROTO, contracts: Path = CONTRACTS) -> int:
    """Bring `contracts` to what `proto` says, touching only files that differ. Returns how many files changed."""
    changed = 0
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        generate(proto, fresh)
        wanted = set(_generated(fresh))
        for path in wanted:
            target = contracts / path
            if not target.exists() or not filecmp.cmp(fresh / path, target, shallow=False):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(fresh / path, target)
                changed += 1
        for path in set(_generated(contracts)) - wanted:
            (contracts / path).unlink()
            changed += 1
    return changed


def drift(proto: Path = PROTO, contracts: Path = CONTRACTS) -> list[str]:
    """What differs between `contracts` and freshly generated code: one line a file."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        generate(proto, fresh)
        wanted, present = set(_generated(fresh)), set(_generated(contracts))
        lines = [f"missing: {path}" for path in wanted - present]
        lines += [f"not generated from any proto: {path}" for path in present - wanted]
        lines += [
            f"differs: {path}"
            for path in wanted & present
            if not filecmp.cmp(fresh / path, contracts / path, shallow=False)
        ]
    return sorted(lines)


def lint(proto: Path = PROTO) -> None:
    _run(_tool("buf"), "lint", str(proto))


def _git_command(root: Path, *arguments: str) -> list[str]:
    # A clone that belongs to another user is refused unless it is named as safe.
    return ["git", "-c", f"safe.directory={root.resolve()}", "-C", str(root), *arguments]


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(_git_command(root, *arguments), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def baselines(root: Path) -> list[str]:
    """Commits whose contracts are promised: the tip of main (the remote's where there is one), the newest release."""
    main = next(
        (ref for ref in ("origin/main", "main") if _git(root, "rev-parse", "--verify", "-q", f"{ref}^{{commit}}")), None
    )
    tag = _git(root, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    return [ref for ref in (main, tag) if ref]


def breaking(root: Path = ROOT) -> list[str]:
    """Compare root/proto with each baseline; raises ProtoError with buf's findings. Returns the baselines compared."""
    compared = []
    for ref in baselines(root):
        archive = subprocess.run(
            ["git", "-C", str(root), "archive", "--format=zip", ref, "proto"], capture_output=True, check=False
        )
        if archive.returncode:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            with zipfile.ZipFile(io.BytesIO(archive.stdout)) as packed:
                packed.extractall(temporary)
            before = Path(temporary) / "proto"
            if not sources(before):
                continue
            try:
                _run(_tool("buf"), "breaking", str(root / "proto"), "--against", str(before))
            except ProtoError as error:
                raise ProtoError(f"incompatible with {ref}:\n{error}") from None
        compared.append(ref)
    return compared


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["write", "check", "lint", "breaking"])
    step = parser.parse_args(argv).step
    try:
        if step == "write":
            print(f"libs/contracts: {write()} files changed")
        elif step == "check":
            lines = drift()
            if lines:
                raise ProtoError("\n".join([*lines, "run `make proto` and commit the result"]))
        elif step == "lint":
            lint()
        else:
            compared = breaking()
            print(
                "compatible with " + ", ".join(compared) if compared else "no earlier state of proto/ to compare with"
            )
    except ProtoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
