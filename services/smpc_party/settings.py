"""The settings of one party. Unknown keys are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from libs.core.ids import PARTIES
from libs.rpc.identity import Identity, party_identity
from libs.rpc.settings import RpcSettings
from libs.runtime.settings import ServiceSettings


class PeerSettings(ServiceSettings):
    """Where another party listens, and the identity its certificate must carry."""

    index: int = Field(ge=0, le=2)
    address: str
    identity: str


class PartySettings(RpcSettings):
    """`python -m services.smpc_party --config party.toml`"""

    index: int = Field(ge=0, le=2)
    peers: tuple[PeerSettings, ...]
    # Folder of the encrypted shares and their index.
    store: Path
    # 32 bytes in hexadecimal; without it the store is unreadable.
    storage_key: Path
    quota_bytes: int | None = Field(default=None, gt=0)
    # The longest deadline that a prediction may be given.
    prediction_deadline_s: float = Field(default=30.0, gt=0)
    # How long the three parties may take to close a round.
    close_deadline_s: float = Field(default=120.0, gt=0)
    max_batch: int = Field(default=64, ge=1, le=4096)
    # About the memory that all predictions in progress may take together.
    max_prediction_bytes: int = Field(default=8 * 2**30, gt=0)
    # In progress at once.
    max_predictions_per_client: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _names_both_peers(self) -> Self:
        if sorted([self.index, *(peer.index for peer in self.peers)]) != list(PARTIES):
            raise ValueError("peers must name the two other parties, each once")
        for peer in self.peers:
            if Identity.parse(peer.identity) != party_identity(peer.index):
                raise ValueError(f"the identity of peer {peer.index} must be {party_identity(peer.index)}")
        return self
