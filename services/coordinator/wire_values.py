"""Single values as they travel, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

from google.protobuf.timestamp_pb2 import Timestamp

from libs.core.errors import InvalidInput
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from services.coordinator.domain import SignedText


def to_timestamp(moment: datetime) -> Timestamp:
    """The moment as it travels."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def moment_of(timestamp: Timestamp) -> datetime:
    """The moment, in UTC. InvalidInput for one that no calendar has."""
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("A moment in the message is outside of the calendar.") from error


def to_fraction(fraction: Fraction) -> types_pb2.Fraction:
    """The fraction in lowest terms."""
    return types_pb2.Fraction(numerator=fraction.numerator, denominator=fraction.denominator)


def to_signed(text: SignedText) -> types_pb2.SignedStatement:
    """What somebody signed, as it came."""
    return types_pb2.SignedStatement(
        payload=text.payload, signature=text.signature, certificate_chain=text.certificate_chain
    )


def signed_of(message: types_pb2.SignedStatement) -> SignedText:
    """The same, to be stored."""
    return SignedText(message.payload, message.signature, message.certificate_chain)
