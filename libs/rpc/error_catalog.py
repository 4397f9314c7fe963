"""From exception to gRPC status and back: one table, so that an error means the same in every process.

What leaves the process is a status, a public text, and in the trailing metadata the stable code and the
request id. The other end rebuilds the same class with the same text (`translate`). An exception that is not
in the table is a bug: its text may hold anything, so the caller gets a generic one with the request id, and
the log gets the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

import grpc
from grpc import StatusCode

from libs.core import errors
from libs.core.errors import Bug, DeadlineExceeded, PeerViolation, TooLarge, TrefoilError, Unavailable

CODE_KEY = "trefoil-code"
REQUEST_ID_KEY = "x-request-id"
VIOLATION_KEY = "trefoil-violation-bin"

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_TEXT_BYTES = 4096

CATALOGUE: Mapping[type[TrefoilError], StatusCode] = MappingProxyType(
    {
        errors.TrefoilError: StatusCode.INTERNAL,
        errors.CallerError: StatusCode.INVALID_ARGUMENT,
        errors.InvalidInput: StatusCode.INVALID_ARGUMENT,
        errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
        errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
        errors.NotFound: StatusCode.NOT_FOUND,
        errors.AlreadyExists: StatusCode.ALREADY_EXISTS,
        errors.FailedPrecondition: StatusCode.FAILED_PRECONDITION,
        errors.TooLarge: StatusCode.RESOURCE_EXHAUSTED,
        errors.PeerViolation: StatusCode.ABORTED,
        errors.Unavailable: StatusCode.UNAVAILABLE,
        errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
        errors.StorageFull: StatusCode.RESOURCE_EXHAUSTED,
        errors.Bug: StatusCode.INTERNAL,
        errors.MaskReuse: StatusCode.INTERNAL,
    }
)

# TrefoilError itself shares the code "internal" with Bug, and Bug is what the other end should see.
_CLASS_OF_CODE: dict[str, type[TrefoilError]] = {
    cls.code: cls for cls in CATALOGUE if cls is not TrefoilError
}


@dataclass(frozen=True)
class PublicError:
    """What a caller may know of an error."""

    status: StatusCode
    code: str
    text: str
    violation: bytes | None = None

    def trailing_metadata(self, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
        """The stable code and the request id, and who broke which rule if a peer did."""
        metadata: tuple[tuple[str, str | bytes], ...] = ((CODE_KEY, self.code), (REQUEST_ID_KEY, request_id))
        return metadata if self.violation is None else (*metadata, (VIOLATION_KEY, self.violation))


def public_error(error: BaseException, *, request_id: str) -> PublicError:
    """What the caller is told about `error`.

    A subclass that the table lacks counts as its nearest listed base.
    """
    error = _only_one(error)
    if not isinstance(error, TrefoilError):
        return PublicError(StatusCode.INTERNAL, Bug.code, _bug_text(request_id))
    listed: type[TrefoilError] = next(cls for cls in type(error).__mro__ if cls in CATALOGUE)
    text = _bug_text(request_id) if issubclass(listed, Bug) or listed is TrefoilError else _cut(str(error))
    return PublicError(CATALOGUE[listed], listed.code, text, _violation(error))


async def abort(
    context: grpc.aio.ServicerContext[Any, Any], error: BaseException, *, request_id: str
) -> NoReturn:
    """End the call with what the caller may know of `error`."""
    public = public_error(error, request_id=request_id)
    await context.abort(public.status, public.text, public.trailing_metadata(request_id))


class FailedCall(grpc.aio.AioRpcError):
    """A failed call that knows whom it was made to: `server` is an identity and an address."""

    def __init__(self, error: grpc.aio.AioRpcError, server: str) -> None:
        super().__init__(
            error.code(),
            error.initial_metadata(),
            error.trailing_metadata(),
            details=error.details(),
            debug_error_string=error.debug_error_string(),
        )
        self.server = server


# What grpc.aio itself says when it could not write because the link was gone; a server of ours never does.
_BROKEN_WHILE_SENDING = "Internal error from Core"


def translate(error: grpc.aio.AioRpcError) -> TrefoilError:
    """The error that the other end raised, or what a failure of the transport means.

    A status without a known `trefoil-code` came from gRPC itself: nobody was reached, time ran out, a message
    was over the limit. Anything else of that sort is a Bug.
    """
    metadata = dict(error.trailing_metadata() or ())
    cls = _CLASS_OF_CODE.get(str(metadata.get(CODE_KEY)))
    if cls is not None:
        return _rebuild(cls, error.details() or "", metadata)
    status = error.code()
    server = error.server if isinstance(error, FailedCall) else "The service"
    if status is StatusCode.UNAVAILABLE:
        return Unavailable(
            f"{server} cannot be reached, or one of the two certificates was refused. "
            "Check its address, that it runs, and that both have certificates of one CA; then try again."
        )
    broken = status is StatusCode.INTERNAL and error.details() == _BROKEN_WHILE_SENDING
    if broken or status is StatusCode.CANCELLED:
        return Unavailable(
            f"The call to {server[0].lower() + server[1:]} ended too early: the link broke, or it was "
            "cancelled. Try again."
        )
    if status is StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(
            f"{server} did not answer within the time given. Try again, or allow more time."
        )
    if status is StatusCode.RESOURCE_EXHAUSTED:
        return TooLarge(
            f"A message was larger than the {MAX_MESSAGE_BYTES // 2**20} MiB that services accept at once. "
            "Send less in one message: smaller chunks or a smaller batch."
        )
    return Bug(f"{server} answered {status.name} without a code of Trefoil's; its log has the details.")


@contextmanager
def translated() -> Iterator[None]:
    """Within it, a failed call raises the TrefoilError of `translate`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise translate(error) from error


def _rebuild(cls: type[TrefoilError], text: str, metadata: Mapping[str, str | bytes]) -> TrefoilError:
    """An instance with exactly this text: PeerViolation's own constructor would write its text again."""
    if cls is not PeerViolation:
        return cls(text)
    fields = _fields(metadata.get(VIOLATION_KEY, b""))
    violation = PeerViolation(
        computation=str(fields.get("computation", "unknown")),
        sender=str(fields.get("sender", "unknown")),
        rule=str(fields.get("rule", "unknown")),
    )
    violation.args = (text,)
    return violation


def _only_one(error: BaseException) -> BaseException:
    """The error in a task group's ExceptionGroup, if all that failed there are errors of ours."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    members = [_only_one(member) for member in error.exceptions]
    return members[0] if all(isinstance(member, TrefoilError) for member in members) else error


def _violation(error: TrefoilError) -> bytes | None:
    if not isinstance(error, PeerViolation):
        return None
    fields = {"computation": error.computation, "sender": str(error.sender), "rule": _cut(error.rule)}
    return json.dumps(fields).encode()


def _fields(sent: str | bytes) -> dict[str, Any]:
    """Who broke which rule, as sent; empty if that is damaged, since the public text says it too."""
    try:
        fields = json.loads(sent)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _bug_text(request_id: str) -> str:
    return f"Trefoil failed in a way it should not. Give its operator the request id {request_id} to look up."


def _cut(text: str) -> str:
    """`text` within what gRPC allows for metadata; long lists (unsupported layers) end in a mark."""
    encoded = text.encode()
    if len(encoded) <= MAX_TEXT_BYTES:
        return text
    return encoded[: MAX_TEXT_BYTES - 8].decode(errors="ignore") + " [...]"
