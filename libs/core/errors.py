"""Every error that crosses a boundary, by whose fault it is.

The text of an exception is public: it says what happened and what to do next, and it never
holds a value, a share, a token or a patient. Details that help an engineer go to the log.
`libs/rpc/error_catalog.py` maps each class to its gRPC status.
"""

from __future__ import annotations


class TrefoilError(Exception):
    """Base of all errors with a stable `code` and a public text."""

    code = "internal"


# ---------------------------------------------------------------- the caller's fault


class CallerError(TrefoilError):
    """The request cannot be served as it is; repeating it unchanged will not help."""

    code = "caller_error"


class InvalidInput(CallerError):
    """Malformed, out of range, of the wrong shape, type or length."""

    code = "invalid_input"


class Unauthenticated(CallerError):
    """No valid token or certificate."""

    code = "unauthenticated"


class PermissionDenied(CallerError):
    """Known, but not allowed to do this."""

    code = "permission_denied"


class NotFound(CallerError):
    """What was named does not exist, or the caller may not know that it does."""

    code = "not_found"


class AlreadyExists(CallerError):
    """The name is taken by something else."""

    code = "already_exists"


class FailedPrecondition(CallerError):
    """Right request, wrong time: something else has to happen first."""

    code = "failed_precondition"


class TooLarge(CallerError):
    """A message, an upload or a batch beyond the limit."""

    code = "too_large"


# ---------------------------------------------------------------- another server's fault


class PeerViolation(TrefoilError):
    """A peer broke the protocol; the computation is aborted and its material burned."""

    code = "peer_violation"

    def __init__(self, *, computation: str, sender: int | str, rule: str) -> None:
        super().__init__(
            f"Computation {computation} was aborted: party {sender} broke the protocol ({rule}). "
            "Nothing was revealed. Ask again; if it happens again, tell the party's operator."
        )
        self.computation, self.sender, self.rule = computation, sender, rule


# ---------------------------------------------------------------- nobody's fault, try again


class Unavailable(TrefoilError):
    """A service or link is down for now; the same request may work later."""

    code = "unavailable"


class DeadlineExceeded(Unavailable):
    """It took longer than the time given for it."""

    code = "deadline_exceeded"


class StorageFull(Unavailable):
    """The disk or its quota is full; nothing was kept of the request."""

    code = "storage_full"


# ---------------------------------------------------------------- ours


class Bug(TrefoilError):
    """Trefoil is wrong. The text is generic; the log has the details."""

    code = "internal"


class MaskReuse(Bug):
    """A mask was about to be drawn a second time. Two values under one mask leak their difference."""

    code = "mask_reuse"
