"""Mails, signing keys and sign-ins, while identity is killed, turned over and flooded."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections import Counter

import httpx2
import psutil

from omoios_local.mailbox import Mailbox
from omoios_local.ports import SERVICES
from tests.faults import judge
from tests.faults.run import Case, Run
from tests.faults.stack import eventually
from tests.faults.tenant import PASSWORD

MAILS = 12
MAIL_S = 60.0
ROTATIONS = 3
# A command starts an interpreter, which a busy machine takes its time for.
COMMAND_S = 180.0
# Twice the pause in which instances read the keys again.
BETWEEN_ROTATIONS_S = 4.0
FLOOD_PER_S = 200
FLOOD_S = 10.0
# Two hashes of 19 MiB at once, and the requests that wait.
FLOOD_GROWTH_BYTES = 160 * 1024 * 1024


def accounts(run: Run) -> None:
    """Everything that only identity does."""
    for number in range(run.times):
        again = f", time {number + 1}" if number else ""
        with run.case(f"kill -9 between the intent of a mail and its sending{again}") as case:
            _mails(run, case, held=True)
        with run.case(f"kill -9 while mails are sent{again}") as case:
            _mails(run, case, held=False)
    with run.case(f"the signing key turned over {ROTATIONS} times") as case:
        _rotations(run, case)
    with run.case(f"{FLOOD_PER_S} wrong passwords a second for {FLOOD_S:g} s") as case:
        _flood(run, case)


def _mails(run: Run, case: Case, *, held: bool) -> None:
    """Every acknowledged registration gives one mail; `held`: the mail server is away until identity was killed."""
    began = run.load.history.now()
    if held:
        run.stack.client.stop(["mail"])
    addresses = [f"mail-{secrets.token_hex(6)}@example.com" for _ in range(MAILS)]
    with httpx2.Client(base_url=run.stack.url, timeout=30, trust_env=False) as http:
        for number, address in enumerate(addresses):
            body = {"email": address, "password": PASSWORD}
            answer = http.post("/api/v1/auth/register", json=body)
            assert answer.status_code == 201, f"{answer.status_code} {answer.text[:200]}"
            if not held and number == MAILS // 2:
                time.sleep(run.rng.uniform(0.0, 1.0))
                run.stack.client.kill("identity", "KILL")
                run.healthy()
    if held:
        run.stack.client.kill("identity", "KILL")
        run.stack.client.up(["mail"])
    run.healthy()
    # What SMTP's DATA had begun for when the process died is known to nobody: never sent again, and told so.
    listed = "SELECT recipient, state FROM mails WHERE recipient = ANY($1)"

    def states() -> dict[str, str] | None:
        found = {row["recipient"]: row["state"] for row in run.stack.sql("identity", listed, addresses)}
        return found if all(state in ("sent", "uncertain") for state in found.values()) else None

    ended: dict[str, str] = eventually(states, "every mail was sent or is told to be uncertain", MAIL_S)
    mailbox = Mailbox(run.stack.client.state.mail)
    for address in addresses:
        count = len(mailbox.mails(address))
        if count != 1 and not (count == 0 and ended.get(address) == "uncertain"):
            case.problems.append(f"{count} mails to {address}, state {ended.get(address)}")
    uncertain = sum(state == "uncertain" for state in ended.values())
    if held and uncertain:
        case.problems.append(f"{uncertain} mails are uncertain, though no server was there to take them")
    case.notes.append(f"{MAILS} mails, {uncertain} uncertain")
    case.problems += judge.improper(run.since(began))


def _rotations(run: Run, case: Case) -> None:
    """Tokens of before and after are let in by every service."""
    began = run.load.history.now()
    environment = {**os.environ, "OMOIOS_STATE_DIR": str(run.stack.client.state.directory)}
    with httpx2.Client(base_url=f"{run.stack.url}/api/v1", timeout=30, trust_env=False) as http:
        body = {"email": f"keys-{secrets.token_hex(6)}@example.com", "password": PASSWORD}
        assert http.post("/auth/register", json=body).status_code == 201
        for _ in range(ROTATIONS):
            argv = [sys.executable, "-P", "-m", "omoios_local", "rotate-keys"]
            subprocess.run(argv, env=environment, check=True, timeout=COMMAND_S, capture_output=True)
            token = http.post("/auth/login", json=body).json()["access_token"]
            http.cookies.clear()
            for path in ("/auth/me", "/projects", "/agents", "/monitor/dashboard"):
                status = http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code
                if status == 401:
                    case.problems.append(f"a token of the new key was refused: {path}")
            run.steady(BETWEEN_ROTATIONS_S)
    refused = Counter(item.kind for item in run.since(began) if item.status == 401)
    case.problems += [f"{kind}: {count} answers 401" for kind, count in refused.items()]


def _flood(run: Run, case: Case) -> None:
    """Bounded memory, no other service notices, and the owner signs in right after it."""
    began = run.load.history.now()
    process = psutil.Process(run.stack.pids("identity")[0])
    before = process.memory_info().rss
    statuses, peak = asyncio.run(_guess(run.stack.url, process))
    case.notes.append(
        f"{sum(statuses.values())} attempts {dict(sorted(statuses.items()))}, +{(peak - before) / 1e6:.0f} MB"
    )
    if peak - before > FLOOD_GROWTH_BYTES:
        case.problems.append(f"identity grew by {(peak - before) / 1e6:.0f} MB")
    # What a busy machine cannot take in has no answer within the client's patience; where even /livez took longer than
    # the gateway waits for it, that is 502.
    odd = {status: count for status, count in statuses.items() if status not in (0, 401, 429, 502, 503, 504)}
    case.problems += [f"{count} answers {status}" for status, count in odd.items()]
    case.problems += judge.failed(run.since(began), [f"probe.{name}" for name in SERVICES if name != "identity"])
    body = {"email": run.load.tenants[0].email, "password": PASSWORD}
    run.healthy(within_s=90)
    with httpx2.Client(base_url=run.stack.url, timeout=30, trust_env=False) as http:
        eventually(
            lambda: http.post("/api/v1/auth/login", json=body).status_code == 200,
            "the owner signs in after the flood",
            30,
        )


async def _guess(url: str, process: psutil.Process) -> tuple[Counter[int], int]:
    """Status → how often, and the most memory that was seen."""
    statuses: Counter[int] = Counter()
    peak = 0
    limits = httpx2.Limits(max_connections=400)
    async with httpx2.AsyncClient(base_url=url, timeout=40, limits=limits, trust_env=False) as http:

        async def attempt(number: int) -> None:
            body = {"email": f"flood-{number}@example.com", "password": "wrong"}
            try:
                statuses[(await http.post("/api/v1/auth/login", json=body)).status_code] += 1
            except httpx2.HTTPError:
                statuses[0] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(int(FLOOD_PER_S * FLOOD_S)):
                group.create_task(attempt(number))
                if number % 20 == 0:
                    peak = max(peak, process.memory_info().rss)
                await asyncio.sleep(1 / FLOOD_PER_S)
    return statuses, max(peak, process.memory_info().rss)
