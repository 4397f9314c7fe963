"""What a status means when it did not come from us, and how errors become public."""

from __future__ import annotations

import grpc
import pytest

from libs.core import errors
from libs.core.errors import Bug, InvalidInput, TrefoilError
from libs.rpc.error_catalog import MAX_TEXT_BYTES, public_error, translate


class UnsupportedLayer(InvalidInput):
    """A class of a library, unknown to the catalogue."""


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.CANCELLED, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.TooLarge),
        (grpc.StatusCode.UNIMPLEMENTED, Bug),
        (grpc.StatusCode.UNKNOWN, Bug),
        (grpc.StatusCode.INTERNAL, Bug),
    ],
)
def test_a_failure_of_the_transport_has_a_meaning_and_a_next_step(
    status: grpc.StatusCode, cls: type[TrefoilError]
) -> None:
    metadata = grpc.aio.Metadata()
    error = translate(grpc.aio.AioRpcError(status, metadata, metadata, details="internals"))
    assert type(error) is cls
    assert "internals" not in str(error)


def test_a_link_that_breaks_while_sending_is_worth_another_try() -> None:
    metadata = grpc.aio.Metadata()
    broken = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, metadata, metadata, details="Internal error from Core"
    )
    assert type(translate(broken)) is errors.Unavailable


def test_an_unknown_code_of_the_other_end_counts_as_none() -> None:
    metadata = grpc.aio.Metadata(("trefoil-code", "from_a_later_release"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), metadata)
    assert type(translate(error)) is errors.Unavailable


def test_a_damaged_violation_of_the_other_end_is_still_a_peer_violation() -> None:
    metadata = grpc.aio.Metadata(("trefoil-code", "peer_violation"), ("trefoil-violation-bin", b"\xff[1"))
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.ABORTED, grpc.aio.Metadata(), metadata, details="public text"
    )
    translated = translate(error)
    assert isinstance(translated, errors.PeerViolation)
    assert str(translated) == "public text"
    assert translated.sender == "unknown"


def test_a_subclass_outside_the_catalogue_counts_as_its_base() -> None:
    public = public_error(UnsupportedLayer("GroupNorm has to go."), request_id="r")
    assert (public.status, public.code, public.text) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "invalid_input",
        "GroupNorm has to go.",
    )


def test_a_text_is_cut_at_whole_characters() -> None:
    public = public_error(InvalidInput("é" * MAX_TEXT_BYTES), request_id="r")
    assert len(public.text.encode()) <= MAX_TEXT_BYTES
    assert public.text.endswith("é [...]")
