"""Which part listens where, and who is in the way when a port is busy."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

import psutil

from omoios_local.embedded.process import LOOPBACK

SERVICES = ("identity", "workflow", "agents", "monitoring", "billing", "vcs")

FIXED = {"gateway": 18000, "postgres": 15432, "redis": 16379, "nats": 14222, "mail": 18025}
PAGES = {"mail": 18026, "gateway": 18009}
HTTP = {**{name: 18101 + index for index, name in enumerate(SERVICES)}, "edge": 18107}
RPC = {name: 18201 + index for index, name in enumerate(SERVICES)}

# Instances of one service lie ten ports apart: 18102, 18112, 18122 … and 18202, 18212, 18222 …
SLOT_STEP = 10
SLOTS = 10
# The highest port, 18206 and nine slots, stays below 65536.
LARGEST_OFFSET = 40000


@dataclass(frozen=True, order=True)
class PortClaim:
    """A TCP port of 127.0.0.1 and the part that wants it."""

    port: int
    part: str


@dataclass(frozen=True)
class BusyPort:
    claim: PortClaim
    process: str | None

    def __str__(self) -> str:
        owner = self.process or "a process that this user may not see"
        return f"port {self.claim.port} of {self.claim.part} is taken by {owner}"


class PortsBusy(RuntimeError):
    """Ports that other programs hold; the message names each with its part and, where it can be seen, the process."""

    def __init__(self, busy: list[BusyPort]) -> None:
        lines = "\n".join(f"  {item}" for item in busy)
        super().__init__(f"{lines}\n  End that program, or shift every port: OMOIOS_PORT_OFFSET=1000")
        self.busy = busy


@dataclass
class PortPlan:
    """The ports of one stack. `slots` remembers which of its ten places each further instance of a part took."""

    offset: int = 0
    slots: dict[tuple[str, int], int] = field(default_factory=dict)

    def fixed(self, part: str) -> int:
        return FIXED[part] + self.offset

    def page(self, part: str) -> int:
        """A further port of a part: where mails are shown, where the gateway counts for its rate limits."""
        return PAGES[part] + self.offset

    def http(self, part: str, instance: int = 1) -> int:
        return HTTP[part] + self.offset + SLOT_STEP * self._slot(part, instance)

    def rpc(self, part: str, instance: int = 1) -> int:
        return RPC[part] + self.offset + SLOT_STEP * self._slot(part, instance)

    def claims(self, part: str, instance: int = 1) -> list[PortClaim]:
        """Every port that one instance of a part listens on."""
        ports: list[int] = []
        if part in FIXED:
            ports.append(self.fixed(part))
        if part in PAGES:
            ports.append(self.page(part))
        if part in HTTP:
            ports.append(self.http(part, instance))
        if part in RPC:
            ports.append(self.rpc(part, instance))
        return [PortClaim(port, part) for port in ports]

    def release(self, part: str, instance: int) -> None:
        self.slots.pop((part, instance), None)

    def _slot(self, part: str, instance: int) -> int:
        """The first instance has the default port; others take the next place whose ports are all free."""
        if instance == 1:
            return 0
        key = (part, instance)
        if key not in self.slots:
            taken = {slot for (name, _), slot in self.slots.items() if name == part}
            for slot in range(1, SLOTS):
                ports = [base[part] + self.offset + SLOT_STEP * slot for base in (HTTP, RPC) if part in base]
                if slot not in taken and all(is_free(port) for port in ports):
                    self.slots[key] = slot
                    break
            else:
                raise RuntimeError(f"no free port is left for another instance of {part} ({SLOTS} at most)")
        return self.slots[key]


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as listener:
        # Servers set this option too: closed connections in TIME_WAIT are then no obstacle, a listener still is.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def check(claims: Iterable[PortClaim]) -> None:
    """Raises PortsBusy when any of the ports cannot be listened on."""
    taken = [claim for claim in sorted(claims) if not is_free(claim.port)]
    if taken:
        owners = listeners({claim.port for claim in taken})
        raise PortsBusy([BusyPort(claim, owners.get(claim.port)) for claim in taken])


def listeners(ports: set[int]) -> dict[int, str]:
    """Port → `name (pid N)` of the process that listens there, as far as this user may see it."""
    found: dict[int, str] = {}
    with contextlib.suppress(psutil.AccessDenied, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            port = int(getattr(connection.laddr, "port", 0))
            if connection.status == psutil.CONN_LISTEN and connection.pid and port in ports:
                with contextlib.suppress(psutil.Error):
                    found[port] = f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return found
