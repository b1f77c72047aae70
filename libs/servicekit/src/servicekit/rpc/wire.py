"""`AppError` on the gRPC wire: status, and `google.rpc.Status` details from which the client makes the same error
again.

`ErrorInfo.reason` is the code, its metadata the error's own plus the kind, since several kinds share a status code.
`BadRequest` carries the refused fields, `RetryInfo` the wait, `Struct` an object-shaped detail.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from servicekit.errors import AppError, ErrorSpec, FieldError, Kind, internal
from servicekit.rpc.metadata import STATUS_DETAILS

DOMAIN = "omoios"
KIND_KEY = "omoios-kind"
MAX_DETAIL_CHARS = 2_000
MAX_META_BYTES = 8_000
"""Trailers beyond the agreed size would lose the whole error; meta that would not fit stays behind."""
MAX_FIELDS = 50

PEER_UNAVAILABLE = ErrorSpec(
    "rpc.peer_unavailable", Kind.UNAVAILABLE, "A part this needs is not available now.", retry_after_s=1.0
)
DEADLINE_EXCEEDED = ErrorSpec("rpc.deadline_exceeded", Kind.DEADLINE, "A part this needs took too long.", 1.0)
DEADLINE_TOO_SHORT = ErrorSpec("rpc.deadline_too_short", Kind.DEADLINE, "Too little time was left to begin.", 1.0)
CALLER_UNAUTHENTICATED = ErrorSpec("rpc.unauthenticated", Kind.UNAUTHENTICATED, "A valid service token is required.")
CALLER_NOT_ALLOWED = ErrorSpec("rpc.caller_not_allowed", Kind.FORBIDDEN, "This service may not call this method.")

_OWN_REFUSALS = frozenset({CALLER_UNAUTHENTICATED.code, CALLER_NOT_ALLOWED.code})
_CODES: dict[str, grpc.StatusCode] = {code.name: code for code in grpc.StatusCode}
_KIND_OF_CODE: dict[grpc.StatusCode, Kind] = {
    grpc.StatusCode.INVALID_ARGUMENT: Kind.INVALID,
    grpc.StatusCode.FAILED_PRECONDITION: Kind.REFUSED,
    grpc.StatusCode.NOT_FOUND: Kind.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: Kind.CONFLICT,
    grpc.StatusCode.ABORTED: Kind.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.RATE_LIMITED,
}


def status_code(kind: Kind) -> grpc.StatusCode:
    """The gRPC status code of a kind."""
    return _CODES[kind.grpc_code]


def to_status(error: AppError) -> status_pb2.Status:
    """The status message of an error. An INTERNAL one is replaced by its constant form: no cause leaves the process."""
    if error.kind is Kind.INTERNAL:
        error = internal()
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata={KIND_KEY: error.kind.label})
    room = MAX_META_BYTES
    for name, value in error.meta.items():
        room -= len(name.encode()) + len(value.encode())
        if room < 0:
            break
        info.metadata[name] = value
    details: list[Message] = [info]
    if error.fields:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=json.dumps(list(field.loc)), description=field.msg[:200], reason=field.type
                    )
                    for field in error.fields[:MAX_FIELDS]
                ]
            )
        )
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(retry)
    if error.detail_object is not None:
        object_ = struct_pb2.Struct()
        object_.update(dict(error.detail_object))
        details.append(object_)
    return status_pb2.Status(
        code=status_code(error.kind).value[0], message=error.detail[:MAX_DETAIL_CHARS], details=map(_packed, details)
    )


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: AppError) -> None:
    """Ends a call with an error; always raises."""
    status = to_status(error)
    await context.abort(
        status_code(internal().kind if error.kind is Kind.INTERNAL else error.kind),
        status.message,
        ((STATUS_DETAILS, status.SerializeToString()),),
    )


def from_rpc_error(error: grpc.aio.AioRpcError, peer: str) -> AppError:
    """The `AppError` that a failed call stands for.

    A status without details comes from gRPC itself: an absent peer is UNAVAILABLE with `retry_after_s=1`. A peer that
    refuses this service (its token or its right to call) is a fault between services: INTERNAL, never the user's 401.
    """
    code, message = error.code(), error.details() or ""
    details = _details(error)
    if details is not None:
        rebuilt = _rebuild(details)
        if rebuilt is not None:
            if rebuilt.code in _OWN_REFUSALS:
                return AppError(rebuilt.code, internal().detail, Kind.INTERNAL, meta={"peer": peer})
            return rebuilt
    if code is grpc.StatusCode.UNAVAILABLE:
        return PEER_UNAVAILABLE(peer=peer)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DEADLINE_EXCEEDED(peer=peer)
    if code is grpc.StatusCode.CANCELLED:
        # The peer, not this caller, ended it: it is shutting down or was cut off.
        return PEER_UNAVAILABLE(peer=peer)
    kind = _KIND_OF_CODE.get(code)
    if kind is None:
        return AppError("rpc.failed", internal().detail, Kind.INTERNAL, meta={"peer": peer, "status": code.name})
    return AppError(f"rpc.{code.name.lower()}", message or kind.title, kind, meta={"peer": peer})


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    trailers: Iterable[tuple[str, Any]] = error.trailing_metadata() or ()
    for name, value in trailers:
        if name == STATUS_DETAILS and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _rebuild(status: status_pb2.Status) -> AppError | None:
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    object_ = struct_pb2.Struct()
    found: set[str] = set()
    for packed in status.details:
        for message in (info, bad_request, retry, object_):
            if packed.Is(message.DESCRIPTOR) and packed.Unpack(message):
                found.add(message.DESCRIPTOR.name)
    if "ErrorInfo" not in found or info.domain != DOMAIN:
        return None
    meta = dict(info.metadata)
    kind = Kind.from_label(meta.pop(KIND_KEY, ""))
    return AppError(
        info.reason,
        status.message,
        kind,
        meta=meta,
        retry_after_s=retry.retry_delay.ToNanoseconds() / 1e9 if "RetryInfo" in found else None,
        fields=_fields(bad_request.field_violations),
        detail_object=MessageToDict(object_) if "Struct" in found else None,
    )


def _fields(violations: Sequence[Any]) -> list[FieldError]:
    fields: list[FieldError] = []
    for violation in violations:
        try:
            loc = tuple(json.loads(violation.field))
        except (ValueError, TypeError):
            loc = (violation.field,)
        fields.append(FieldError(loc, violation.description, violation.reason or "value_error"))
    return fields
