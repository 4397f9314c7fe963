"""A signed statement of where a trail ended at one moment: what came before cannot be rewritten unnoticed."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from libs.core.errors import InvalidInput
from libs.runtime.audit.entry import canonical, moment_text

_FORMAT = "trefoil-audit-checkpoint-1"
T = TypeVar("T")


class Signer(Protocol):
    """Signs for one service. `libs/rpc/signing.py` has the one that uses its TLS key."""

    @property
    def identity(self) -> str:
        """The identity URI in the certificate."""
        ...

    @property
    def certificates(self) -> tuple[str, ...]:
        """The certificate in PEM, then those that lead from it to the CA."""
        ...

    def sign(self, message: bytes) -> bytes:
        """A signature that the certificate's public key verifies."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """Trail `trail` had `sequence` entries and the last one had the hash `head_hash`.

    `number` counts the checkpoints of a trail from 1, so that none can be left out.
    """

    trail: str
    number: int
    sequence: int
    head_hash: str
    at: str
    certificates: tuple[str, ...]
    signature: bytes

    @classmethod
    def sign(
        cls, *, trail: str, number: int, sequence: int, head_hash: str, at: datetime, signer: Signer
    ) -> Checkpoint:
        """A new one, signed now."""
        unsigned = cls(trail, number, sequence, head_hash, moment_text(at), signer.certificates, b"")
        signature = signer.sign(unsigned.message)
        return cls(trail, number, sequence, head_hash, unsigned.at, signer.certificates, signature)

    @property
    def message(self) -> bytes:
        """What is signed: everything but the signature."""
        return canonical({"format": _FORMAT, **self._body()})

    def to_json(self) -> dict[str, Any]:
        """The checkpoint as one line of an export."""
        return {**self._body(), "signature": base64.b64encode(self.signature).decode("ascii")}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint of a line. InvalidInput for anything that `to_json` does not write exactly so."""
        try:
            checkpoint = cls(
                trail=_typed(line["trail"], str),
                number=_typed(line["number"], int),
                sequence=_typed(line["sequence"], int),
                head_hash=_typed(line["head_hash"], str),
                at=_typed(line["at"], str),
                certificates=tuple(_typed(pem, str) for pem in _typed(line["certificates"], list)),
                signature=base64.b64decode(_typed(line["signature"], str), validate=True),
            )
            same = canonical(checkpoint.to_json()) == canonical(line)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput("it has not the fields of a checkpoint") from error
        if not same:
            raise InvalidInput("it has fields that no checkpoint has")
        return checkpoint

    def _body(self) -> dict[str, Any]:
        return {
            "kind": "checkpoint",
            "trail": self.trail,
            "number": self.number,
            "sequence": self.sequence,
            "head_hash": self.head_hash,
            "at": self.at,
            "certificates": list(self.certificates),
        }


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError("a field of another type")
    return value
