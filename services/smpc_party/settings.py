"""The settings of one party. Unknown keys are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from libs.core.ids import PARTIES
from libs.mpc.kernels.device import Device
from libs.mpc.schemes.masked.comparison import Comparison
from libs.rpc.identity import Identity, party_identity
from libs.rpc.settings import RpcSettings
from libs.runtime.settings import ServiceSettings


class PeerSettings(ServiceSettings):
    """Where another party listens, and the identity its certificate must carry."""

    index: int = Field(ge=0, le=2)
    address: str
    identity: str


class PoolSettings(ServiceSettings):
    """Material made ahead, for each model and batch size that this party deals for."""

    # Below `low_watermark` pieces a shelf is filled up to `high_watermark`; 0 means no pool.
    low_watermark: int = Field(default=2, ge=0, le=64)
    high_watermark: int = Field(default=3, ge=0, le=64)
    # Batch sizes made for every model before anybody asks; others follow when they are asked for.
    batches: tuple[int, ...] = (1,)
    # Encrypted, on the disk; all shelves together.
    max_bytes: int = Field(default=4 << 30, gt=0)
    # Of those, how much stays in memory as well, so that it need not be read and decrypted.
    memory_bytes: int = Field(default=256 << 20, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.high_watermark and not 1 <= self.low_watermark <= self.high_watermark:
            raise ValueError("low_watermark must be between 1 and high_watermark")
        if any(batch < 1 for batch in self.batches):
            raise ValueError("batches must be 1 or more")
        return self


class PartySettings(RpcSettings):
    """`python -m services.smpc_party --config party.toml`"""

    index: int = Field(ge=0, le=2)
    peers: tuple[PeerSettings, ...]
    # Replica i of each party makes up cell i. Cell 0 stores what owners send and takes part in training;
    # the others only predict, with model shares that they fetch from their party's replica in cell 0.
    cell: int = Field(default=0, ge=0, le=1023)
    # Where that replica listens; for every cell but 0.
    home: str | None = None
    # Folder of the encrypted shares and their index.
    store: Path
    # 32 bytes in hexadecimal; without it the store is unreadable.
    storage_key: Path
    quota_bytes: int | None = Field(default=None, gt=0)
    # How long the beginning of an upload that broke off waits for its rest, counted in the quota.
    unfinished_upload_kept_s: float = Field(default=3600.0, gt=0)
    # The longest deadline that a prediction may be given.
    prediction_deadline_s: float = Field(default=30.0, gt=0)
    # How long the three parties may take to close a round.
    close_deadline_s: float = Field(default=120.0, gt=0)
    max_batch: int = Field(default=64, ge=1, le=4096)
    # About the memory that all predictions in progress may take together.
    max_prediction_bytes: int = Field(default=8 * 2**30, gt=0)
    # In progress at once.
    max_predictions_per_client: int = Field(default=16, ge=1)
    pool: PoolSettings = PoolSettings()
    # How signs are found where this party deals: "auto" measures the links, "narrow" takes two rounds and
    # few dealt bytes, "wide" one round and more of them.
    comparison: Literal["auto", "narrow", "wide"] = "auto"
    # Where this party computes its ring products.
    device: Device = Device.CPU

    @property
    def fixed_comparison(self) -> Comparison | None:
        """The comparison that is always chosen; None: by the link."""
        return None if self.comparison == "auto" else Comparison(self.comparison)

    @model_validator(mode="after")
    def _has_a_home(self) -> Self:
        if (self.cell == 0) != (self.home is None):
            raise ValueError("home is the address of this party's replica in cell 0, for every other cell")
        return self

    @model_validator(mode="after")
    def _names_both_peers(self) -> Self:
        if sorted([self.index, *(peer.index for peer in self.peers)]) != list(PARTIES):
            raise ValueError("peers must name the two other parties, each once")
        for peer in self.peers:
            if Identity.parse(peer.identity) != party_identity(peer.index):
                raise ValueError(f"the identity of peer {peer.index} must be {party_identity(peer.index)}")
        return self
