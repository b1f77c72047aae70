"""What services need, made slow and black, while the others have it as before."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from omoios_local.embedded.redis import RedisUser
from tests.faults import judge
from tests.faults.proxy import Mode, Proxy
from tests.faults.run import Case, Run
from tests.faults.scenarios.processes import PROBES
from tests.faults.stack import eventually
from tests.faults.tenant import PASSWORD, sign_in

HELD_S = 4.0
# What a request may take while something behind it is away: the longest wait of a request (3 s for the pool, 2 s for
# an RPC, a claim's own wait of 2 s) times four.
ANSWERED_IN_S = 20.0
# 10 × a usual round trip of 5 ms under load, in each direction.
SLOW_S = 0.05
# What lies behind the proxy → the service that reaches it through it.
USERS = {
    "postgres": "workflow",
    "nats": "workflow",
    "billing": "workflow",
    "workflow": "agents",
    "identity": "agents",
    "redis": "identity",
}
TRIED: tuple[tuple[str, Mode], ...] = (
    ("nats", "black"),
    ("redis", "black"),
    ("billing", "black"),
    ("identity", "black"),
    ("workflow", "black"),
    ("postgres", "slow"),
    ("postgres", "black"),
)
PEERS = ("billing", "workflow", "identity")


def network(run: Run) -> None:
    """Each link of `USERS` through a proxy, slow and black in turn."""
    links = Links(run)
    try:
        links.lay()
        for name, mode in TRIED:
            for number in range(run.times):
                again = f", time {number + 1}" if number else ""
                what = "10 times as slow" if mode == "slow" else "black"
                with run.case(f"{name} is {what} for {USERS[name]}{again}") as case:
                    _hold(run, case, links, name, mode)
    finally:
        links.clear()


class Links:
    """The proxies, by what lies behind them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.proxies: dict[str, Proxy] = {}

    def lay(self) -> None:
        """Start workflow and agents anew, behind the proxies."""
        stack = self.run.stack.stack
        plan = stack.plan
        targets = {name: plan.rpc(name) if name in PEERS else plan.fixed(name) for name in USERS}
        self.proxies = {name: Proxy(port, SLOW_S).start() for name, port in targets.items()}
        secrets = stack.credentials
        database = stack.postgres.url("workflow", secrets.database("workflow"), "workflow")
        redis = stack.redis().url(RedisUser("identity", secrets.redis("identity")))
        self.run.stack.overlay(
            "workflow",
            {
                "OMOIOS_DATABASE_URL_FILE": None,
                "OMOIOS_DATABASE_URL": self._moved(database, "postgres"),
                "OMOIOS_NATS_URL": self._moved(stack.nats().url, "nats"),
                "OMOIOS_RPC_TARGETS": self._targets("billing"),
            },
        )
        self.run.stack.overlay("agents", {"OMOIOS_RPC_TARGETS": self._targets("workflow", "identity")})
        self.run.stack.overlay(
            "identity", {"OMOIOS_REDIS_URL_FILE": None, "OMOIOS_REDIS_URL": self._moved(redis, "redis")}
        )
        self._restart()
        # Redis is asked at sign-ins only.
        self.run.load.call(sign_in(self.run.load.caller, self.run.load.tenants[0]))
        for name, proxy in self.proxies.items():
            # Requests open the connections to peers.
            eventually(lambda opened=proxy: opened.connections, f"something goes through the proxy to {name}", 20)

    def clear(self) -> None:
        """Everything as before."""
        for proxy in self.proxies.values():
            proxy.set("pass")
        for service in set(USERS.values()):
            self.run.stack.overlay(service, {})
        self._restart()
        for proxy in self.proxies.values():
            proxy.stop()

    @contextmanager
    def set(self, name: str, mode: Mode) -> Iterator[None]:
        self.proxies[name].set(mode)
        try:
            yield
        finally:
            self.proxies[name].set("pass")

    def _restart(self) -> None:
        self.run.stack.restart(*sorted(set(USERS.values())))
        self.run.healthy(within_s=60)

    def _targets(self, *names: str) -> str:
        through = {name: f"127.0.0.1:{self.proxies[name].port}" for name in names}
        return json.dumps(self.run.stack.stack.environments.rpc_targets() | through)

    def _moved(self, url: str, name: str) -> str:
        return url.replace(f":{self.proxies[name].target}", f":{self.proxies[name].port}")


def _hold(run: Run, case: Case, links: Links, name: str, mode: Mode) -> None:
    began = run.load.history.now()
    before = len(run.load.caller.open)
    with links.set(name, mode):
        if name == "redis":
            _sign_in_is_refused(run)
        time.sleep(HELD_S)
        waiting = len(run.load.caller.open)
    back = run.healthy()
    case.notes.append(f"at most {waiting} requests open, {before} before; healthy after {back:.1f} s")
    requests = run.since(began)
    # The load of some 50 requests a second would have hundreds open if each of them waited for what is away.
    assert waiting <= before + 120, f"{waiting} requests pile up, {before} were open before"
    victim = {"postgres": "workflow"}.get(name, "")
    case.problems += judge.failed(requests, [kind for service, kind in PROBES.items() if service != victim])
    case.problems += judge.improper(requests)
    slow = [item for item in requests if item.took > ANSWERED_IN_S]
    case.problems += [f"{item.kind} took {item.took:.1f} s" for item in slow[:5]]


def _sign_in_is_refused(run: Run) -> None:
    """Sign-ins are counted in Redis, and fail closed without it: at once, and only they."""
    body = {"email": run.load.tenants[0].email, "password": PASSWORD}
    answer = run.load.call(run.load.caller.request("login.closed", "POST", "/auth/login", "", body))
    assert answer.status == 503, f"a sign-in without Redis was answered {answer.status}"
