"""One error type for every edge: HTTP problems (RFC 9457) and gRPC statuses are made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What went wrong, with the HTTP status, its title and the name of the gRPC status code."""

    INVALID = ("invalid", 422, "Unprocessable Content", "INVALID_ARGUMENT")
    REFUSED = ("refused", 400, "Bad Request", "FAILED_PRECONDITION")
    UNAUTHENTICATED = ("unauthenticated", 401, "Unauthorized", "UNAUTHENTICATED")
    PAYMENT_REQUIRED = ("payment_required", 402, "Payment Required", "FAILED_PRECONDITION")
    FORBIDDEN = ("forbidden", 403, "Forbidden", "PERMISSION_DENIED")
    NOT_FOUND = ("not_found", 404, "Not Found", "NOT_FOUND")
    CONFLICT = ("conflict", 409, "Conflict", "ABORTED")
    GONE = ("gone", 410, "Gone", "NOT_FOUND")
    TOO_LARGE = ("too_large", 413, "Content Too Large", "OUT_OF_RANGE")
    RATE_LIMITED = ("rate_limited", 429, "Too Many Requests", "RESOURCE_EXHAUSTED")
    UNAVAILABLE = ("unavailable", 503, "Service Unavailable", "UNAVAILABLE")
    DEADLINE = ("deadline", 504, "Gateway Timeout", "DEADLINE_EXCEEDED")
    INTERNAL = ("internal", 500, "Internal Server Error", "INTERNAL")

    def __init__(self, label: str, status: int, title: str, grpc_code: str) -> None:
        self.label = label
        self.status = status
        self.title = title
        self.grpc_code = grpc_code

    @classmethod
    def from_label(cls, label: str) -> Kind:
        """The kind named ``label`` (``"not_found"``); INTERNAL for a name that is unknown here."""
        return _BY_LABEL.get(label, cls.INTERNAL)


_BY_LABEL = {kind.label: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One refused input. ``loc`` starts with its place: ``body``, ``query``, ``path`` or ``header``."""

    loc: tuple[str | int, ...]
    msg: str
    type: str = "value_error"
    input: Any = None
    ctx: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """``{type, loc, msg, input, ctx?}``, the shape of the contract's 422 body."""
        item: dict[str, Any] = {"type": self.type, "loc": list(self.loc), "msg": self.msg, "input": self.input}
        if self.ctx:
            item["ctx"] = dict(self.ctx)
        return item


class AppError(Exception):
    """An error with a public code.

    ``code``: ``<service>.<snake_case>``. ``detail``: one sentence for people. ``meta``: more members of the
    body, strings. ``retry_after_s``: seconds after which a retry makes sense. ``fields``: refused inputs (the
    422 list shape). ``detail_object``: the contract's object-shaped ``detail``. ``headers``: HTTP only.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        kind: Kind = Kind.REFUSED,
        *,
        meta: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        fields: Iterable[FieldError] = (),
        detail_object: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.kind = kind
        self.meta: dict[str, str] = dict(meta or {})
        self.retry_after_s = retry_after_s
        self.fields: tuple[FieldError, ...] = tuple(fields)
        self.detail_object = detail_object
        self.headers: dict[str, str] = dict(headers or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.detail!r}, {self.kind.name})"


class AccessRefused(AppError):
    """A refusal decided from cached memberships.

    The HTTP edge refreshes them once, outside any transaction, and runs the endpoint once more; what is raised
    then is answered.
    """


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """An error a service can answer, declared once and documented on its routes."""

    code: str
    kind: Kind
    detail: str
    retry_after_s: float | None = None

    def __call__(
        self,
        detail: str | None = None,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        detail_object: Mapping[str, Any] | None = None,
        **meta: object,
    ) -> AppError:
        """The exception to raise; keywords become string members of the body, ``None`` is left out."""
        return AppError(
            self.code,
            detail or self.detail,
            self.kind,
            meta={name: str(value) for name, value in meta.items() if value is not None},
            retry_after_s=self.retry_after_s if retry_after_s is None else retry_after_s,
            headers=headers,
            detail_object=detail_object,
        )

    def refused(self, detail: str | None = None) -> AccessRefused:
        """The same error as an :class:`AccessRefused`, which a refresh of memberships may cure."""
        return AccessRefused(self.code, detail or self.detail, self.kind)


INVALID_REQUEST = ErrorSpec("request.invalid", Kind.INVALID, "The request is not valid.")
BODY_TOO_LARGE = ErrorSpec("request.too_large", Kind.TOO_LARGE, "The request body is too large.")
ROUTE_NOT_FOUND = ErrorSpec("request.route_not_found", Kind.NOT_FOUND, "There is nothing at this path.")
UNAUTHENTICATED = ErrorSpec("auth.unauthenticated", Kind.UNAUTHENTICATED, "Not authenticated.")
FORBIDDEN = ErrorSpec("auth.forbidden", Kind.FORBIDDEN, "You may not do this.")
RATE_LIMITED = ErrorSpec("request.rate_limited", Kind.RATE_LIMITED, "Too many requests.", 60.0)
UNAVAILABLE = ErrorSpec("service.unavailable", Kind.UNAVAILABLE, "A part this needs is not available now.", 1.0)
OVERLOADED = ErrorSpec("service.overloaded", Kind.UNAVAILABLE, "Too many requests at once; try again.", 1.0)
DEADLINE = ErrorSpec("service.deadline", Kind.DEADLINE, "This took too long.", 1.0)
INTERNAL = ErrorSpec("service.internal", Kind.INTERNAL, "Internal server error")
IDEMPOTENCY_KEY_REUSED = ErrorSpec(
    "idempotency.key_reused", Kind.INVALID, "This Idempotency-Key was used with another request."
)
IDEMPOTENCY_IN_FLIGHT = ErrorSpec(
    "idempotency.in_flight", Kind.CONFLICT, "A request with this Idempotency-Key is still running.", 1.0
)


def invalid(
    field: str | tuple[str | int, ...],
    msg: str,
    value: Any = None,
    *,
    where: str = "body",
    type: str = "value_error",
    ctx: Mapping[str, Any] | None = None,
) -> AppError:
    """A 422 naming one field; ``field`` is its name or path (``("items", 0, "name")``) below ``where``."""
    path = (field,) if isinstance(field, str) else field
    return invalid_fields([FieldError((where, *path), msg, type, value, ctx)])


def invalid_fields(fields: Iterable[FieldError]) -> AppError:
    """A 422 naming several fields."""
    return AppError(INVALID_REQUEST.code, INVALID_REQUEST.detail, Kind.INVALID, fields=fields)


def internal() -> AppError:
    """What a caller sees of an error that nobody declared: never its cause."""
    return INTERNAL()
