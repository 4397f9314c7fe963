"""Which vectors there are, and what an upload says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from libs.mpc.ring import Ring
from services.smpc_party.domain import RoundKey, Terms


@dataclass(frozen=True)
class ModelVector:
    """The vector of one model version."""

    model_id: str


@dataclass(frozen=True)
class MetricsVector:
    """The summed metrics of one round."""

    key: RoundKey


@dataclass(frozen=True)
class ContributionVector:
    """The caller's contribution to one try of a round."""

    key: RoundKey
    attempt: int


Vector = ModelVector | MetricsVector | ContributionVector


@dataclass(frozen=True, repr=False)
class Upload:
    """The header of one upload. `seed` for a share that is PRG(seed), else the SHA-256 of what follows."""

    upload_id: str
    vector: Vector
    ring: Ring
    length: int
    seed: bytes | None
    sha256: bytes
    terms: Terms | None = None
    """What a hospital requires of the round. Only contributions have terms, and all of them do."""
    offset: int = 0
    """Where the chunks begin, in bytes: what was received of this very upload before. 0: at its beginning."""

    def __repr__(self) -> str:
        return f"Upload({self.upload_id}, {self.vector}, values=<redacted>)"
