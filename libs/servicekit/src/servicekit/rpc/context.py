"""What a servicer may know of the call it answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_current: ContextVar[RpcContext | None] = ContextVar("rpc_context", default=None)


@dataclass(frozen=True, slots=True)
class RpcContext:
    """The inbound call.

    `method`: `/package.Service/Method`. `caller`: the calling service's name, `""` for the one method that needs no
    token. `subject`: whom it is made for (`user:<id>`), `""` for clock work. `deadline`: monotonic seconds.
    """

    method: str
    caller: str
    subject: str
    organization_id: str | None
    deadline: float

    @staticmethod
    def current() -> RpcContext:
        """The call being answered. Raises LookupError outside a servicer."""
        context = _current.get()
        if context is None:
            raise LookupError("no RPC is being answered here")
        return context

    @staticmethod
    def inbound() -> RpcContext | None:
        """The call being answered, None outside a servicer."""
        return _current.get()

    @property
    def user_id(self) -> str | None:
        """The user behind the call, None when it is not made for one."""
        kind, _, id_ = self.subject.partition(":")
        return id_ if kind == "user" and id_ else None

    def remaining(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.deadline - time.monotonic()


@contextmanager
def answering(call: RpcContext) -> Iterator[None]:
    """Makes `call` the current one in the block."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)
