"""Commands inside the real bubblewrap: what they see, what they may write, whom they reach."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents_service.engines import adapters
from agents_service.engines.rules import Confinement
from agents_service.runners.adapters import Refused
from agents_service.runners.service import Runner
from agents_service.runners.settings_adapters import RunnerSettings
from omoios_local.embedded.process import scratch_directory

UID = 61_000 if os.geteuid() == 0 else None


@pytest.fixture
async def confinement() -> AsyncIterator[Confinement]:
    """A sandbox's folders beside another one's, in a folder that is hidden but for the first."""
    why = await adapters.why_no_bubblewrap(UID, network=False)
    if why is not None:
        pytest.skip(f"commands cannot be wrapped here: {why}")
    with scratch_directory("omoios-test-") as top:
        for name in ("own/work", "own/home", "other"):
            (top / name).mkdir(parents=True)
        (top / "other" / "secret").write_text("secret")
        if UID is not None:
            for path in (top, *top.rglob("*")):
                os.chown(path, UID, UID)
        yield Confinement(
            workdir=str(top / "own/work"),
            home=str(top / "own/home"),
            uid=UID,
            gid=UID,
            hidden=(str(top),),
            bubblewrap=True,
        )


def content(*parts: str) -> str | None:
    """What a file outside of the sandbox holds; None where there is none."""
    path = Path(*parts)
    return path.read_text() if path.exists() else None


async def run(confinement: Confinement, script: str) -> tuple[int, str]:
    """Exit code and output of a script."""
    said: list[bytes] = []

    async def line(_stream: str, text: bytes) -> None:
        said.append(text)

    process = await adapters.start(["bash", "-c", script], {"PATH": "/usr/bin:/bin"}, confinement)
    return await process.output(line), b"\n".join(said).decode()


@pytest.fixture
async def listener() -> AsyncIterator[int]:
    """Something of this machine that listens on loopback."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_it_writes_its_own_folders_only_and_sees_no_other_sandbox(confinement: Confinement) -> None:
    top = str(Path(confinement.workdir).parents[1])
    code, said = await run(confinement, f"echo x > made; echo y > {confinement.home}/made; pwd; ls {top}")
    assert (code, said.splitlines()[0]) == (0, confinement.workdir)
    assert "other" not in said
    assert content(confinement.workdir, "made") == "x\n"
    assert content(confinement.home, "made") == "y\n"
    assert (await run(confinement, f"cat {top}/other/secret"))[0] != 0
    for place in ("/etc/made", "/usr/made", "/var/tmp/made"):
        code, said = await run(confinement, f"echo x > {place}")
        assert code != 0
        assert content(place) is None


async def test_it_sees_no_process_but_its_own(confinement: Confinement) -> None:
    code, said = await run(confinement, "ls /proc | grep -c '^[0-9]'; echo $$")
    assert code == 0
    seen, own = map(int, said.split())
    assert seen < 10
    assert own < 10
    assert (await run(confinement, f"kill -0 {os.getpid()}"))[0] != 0


async def test_the_network_is_there_only_where_it_is_allowed(confinement: Confinement, listener: int) -> None:
    reach = f"exec 3<>/dev/tcp/127.0.0.1/{listener}"
    assert (await run(confinement, reach))[0] == 0
    alone = replace(confinement, network=False)
    assert (await run(alone, reach))[0] != 0
    code, said = await run(alone, "cat /proc/net/dev | tail -n +3 | cut -d: -f1")
    assert (code, said.split()) == (0, ["lo"])


async def test_it_ends_with_everything_it_started(confinement: Confinement) -> None:
    async def ignore(_stream: str, _text: bytes) -> None:
        return

    process = await adapters.start(["bash", "-c", "sleep 1000 & sleep 1000"], {"PATH": "/usr/bin:/bin"}, confinement)
    reading = asyncio.create_task(process.output(ignore))
    await asyncio.sleep(0.3)
    await process.stop()
    async with asyncio.timeout(20):
        assert await reading != 0


@pytest.fixture
def settings() -> Iterator[RunnerSettings]:
    with scratch_directory("omoios-test-") as top:
        yield RunnerSettings(workdir=top / "work", bubblewrap="off", network=False)


async def test_a_runner_that_cannot_take_the_network_away_does_not_start(settings: RunnerSettings) -> None:
    with pytest.raises(Refused, match="OMOIOS_RUNNER_BUBBLEWRAP is off"):
        await Runner(settings).run(asyncio.Event())


async def test_a_command_of_the_runners_own_user_reads_no_secret_of_its_stack(confinement: Confinement) -> None:
    """As a newcomer's stack stands: a state folder with secrets beside the runner's folder, all of one user."""
    top = Path(confinement.workdir).parents[1]
    (top / "state").mkdir()
    (top / "login").mkdir()
    for place in ("state/envelope.key", "login/token", "login/password"):
        (top / place).write_text("the secret")
    settings = RunnerSettings(
        workdir=top / "own",
        hidden=[top / "state", top / "missing"],
        token_file=top / "login/token",
        password_file=top / "login/password",
    )
    hidden, hidden_files = settings.hidden_from(None)
    wrapped = replace(confinement, hidden=hidden, hidden_files=hidden_files)
    script = f"cat {top}/state/envelope.key {top}/login/token {top}/login/password; echo x > made && cat made"
    code, said = await run(wrapped, script)
    assert (code, said.splitlines()[-1]) == (0, "x"), said
    assert "the secret" not in said
    assert "the secret" in (await run(replace(confinement, hidden=()), script))[1], "else this shows nothing"
