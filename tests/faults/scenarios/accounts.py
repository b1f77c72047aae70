"""Mails, signing keys and sign-ins, while identity is killed, turned over and flooded."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import secrets
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil

from omoios_local import operations
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
FLOOD_CLIENTS = 400
# So long the gateway waits for a sign of life before it leaves an instance out and answers 502.
LIFE_S = 30.0
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
    with run.case(f"{FLOOD_CLIENTS} clients try {FLOOD_PER_S} wrong passwords a second for {FLOOD_S:g} s") as case:
        _flood(run, case)


def _mails(run: Run, case: Case, *, held: bool) -> None:
    """Every acknowledged registration gives one mail; `held`: the mail server is away until identity was killed."""
    began = run.load.history.now()
    if held:
        run.stack.client.stop(["mail"])
    addresses = [f"mail-{secrets.token_hex(6)}@example.com" for _ in range(MAILS)]
    with httpx2.Client(base_url=run.stack.url, timeout=30, trust_env=False) as client:
        for number, address in enumerate(addresses):
            body = {"email": address, "password": PASSWORD}
            answer = client.post("/api/v1/auth/register", json=body)
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
    # What `make rotate-keys` becomes.
    argv = [sys.executable, "-P", "-m", "identity_service.admin", "rotate-signing-key"]
    environment = operations.environment_of(run.stack.client, "identity")
    with httpx2.Client(base_url=f"{run.stack.url}/api/v1", timeout=30, trust_env=False) as client:
        body = {"email": f"keys-{secrets.token_hex(6)}@example.com", "password": PASSWORD}
        assert client.post("/auth/register", json=body).status_code == 201
        for number in range(ROTATIONS):
            if number:
                run.steady(BETWEEN_ROTATIONS_S)
            subprocess.run(argv, env=environment, check=True, timeout=COMMAND_S, capture_output=True)
            token = client.post("/auth/login", json=body).json()["access_token"]
            client.cookies.clear()
            for path in ("/auth/me", "/projects", "/agents", "/monitor/dashboard"):
                status = client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code
                if status == 401:
                    case.problems.append(f"a token of the new key was refused: {path}")
        # The load's own tokens are of a key that is three behind.
        run.steady(1.0)
    refused = Counter(item.kind for item in run.since(began) if item.status == 401)
    case.problems += [f"{kind}: {count} answers 401" for kind, count in refused.items()]


def _flood(run: Run, case: Case) -> None:
    """Each attempt is answered: judged, or refused with 503. Bounded memory, no other service notices, and the owner
    signs in right after it."""
    began = run.load.history.now()
    process = psutil.Process(run.stack.pids("identity")[0])
    before = process.memory_info().rss
    ports = run.stack.ports("identity")
    flood = Flood(run.stack.url)
    peak, slowest_life_s = before, 0.0
    # Asked from a thread of its own: the flood's clients keep their event loop busy, and it would be that one's delay.
    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(asyncio.run, flood.run())
        while not flooding.done():
            for port in ports:
                status, took = _life(port)
                slowest_life_s = max(slowest_life_s, took)
                if status != "200":
                    case.problems.append(f"/livez: {status} after {took:.1f} s")
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.3)
        flooding.result()
    case.notes.append(
        f"{sum(flood.answers.values())} attempts {dict(sorted(flood.answers.items()))}, "
        f"+{(peak - before) / 1e6:.0f} MB, /livez after {slowest_life_s:.1f} s at most"
    )
    if peak - before > FLOOD_GROWTH_BYTES:
        case.problems.append(f"identity grew by {(peak - before) / 1e6:.0f} MB")
    case.problems += [
        f"{count} attempts: {answer}"
        for answer, count in flood.answers.items()
        if answer not in ("401", "429", "503 with Retry-After")
    ]
    assert flood.answers["401"], "no attempt was judged"
    case.problems += judge.failed(run.since(began), [f"probe.{name}" for name in SERVICES if name != "identity"])
    body = {"email": run.load.tenants[0].email, "password": PASSWORD}
    run.healthy(within_s=90)
    with httpx2.Client(base_url=run.stack.url, timeout=30, trust_env=False) as client:
        eventually(
            lambda: client.post("/api/v1/auth/login", json=body).status_code == 200,
            "the owner signs in after the flood",
            30,
        )


def _life(port: int) -> tuple[str, float]:
    """How a process answers `/livez` on a new connection: its status or what went wrong, and after how many seconds."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIFE_S)
    try:
        connection.request("GET", "/livez")
        status = str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        status = type(error).__name__
    finally:
        connection.close()
    return status, time.monotonic() - began


class Flood:
    """Wrong passwords through the gateway; `answers` counts what came of them."""

    def __init__(self, url: str) -> None:
        self.answers: Counter[str] = Counter()
        self._url = url

    async def run(self) -> None:
        limits = httpx2.Limits(max_connections=FLOOD_CLIENTS)
        async with (
            httpx2.AsyncClient(base_url=self._url, timeout=60, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as clients,
        ):
            for number in range(FLOOD_CLIENTS):
                clients.create_task(self._guess(client, number))

    async def _guess(self, client: httpx2.AsyncClient, number: int) -> None:
        """One client of many, which tries on as soon as it was answered, at its share of the rate."""
        due = time.monotonic() + number / FLOOD_PER_S
        end = time.monotonic() + FLOOD_S
        for again in itertools.count():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if again and time.monotonic() >= end:
                return
            await self._attempt(client, f"flood-{number}-{again}@example.com")
            due = max(due + FLOOD_CLIENTS / FLOOD_PER_S, time.monotonic())

    async def _attempt(self, client: httpx2.AsyncClient, email: str) -> None:
        body = {"email": email, "password": "wrong"}
        try:
            answer = await client.post("/api/v1/auth/login", json=body)
        except httpx2.HTTPError as error:
            self.answers[type(error).__name__] += 1
            return
        patient = " with Retry-After" if "retry-after" in answer.headers and answer.status_code == 503 else ""
        self.answers[f"{answer.status_code}{patient}"] += 1
