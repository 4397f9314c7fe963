"""Everything that can be set about the coordinator. Unknown keys are refused."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from libs.core.errors import InvalidInput
from libs.core.ids import PARTIES
from libs.rpc.identity import Identity, Kind
from libs.rpc.settings import RpcSettings
from libs.runtime.settings import ServiceSettings


class PartySettings(ServiceSettings):
    """One of the three parties, as hospitals and clients must address it too."""

    index: Literal[0, 1, 2]
    address: str = Field(description='"host:port"')
    identity: str = Field(description="spiffe://trefoil.local/party/<index>")

    @field_validator("identity")
    @classmethod
    def _is_a_party(cls, uri: str) -> str:
        try:
            identity = Identity.parse(uri)
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        if identity.kind is not Kind.PARTY:
            raise ValueError("is not a party's identity")
        return uri


class CoordinatorSettings(RpcSettings):
    """One coordinator. Paths and SQLite files are relative to the settings file."""

    database: str = "sqlite:///coordinator.db"
    parties: tuple[PartySettings, ...]
    cells: tuple[tuple[str, str, str], ...] = Field(
        default=(), description='further cells: each the "host:port" of party 0, 1 and 2\'s replica in it'
    )
    round_deadline_s: float = Field(
        default=86400.0, gt=0, description="longest that a plan may give hospitals for one round"
    )
    prediction_deadline_s: float = Field(default=30.0, gt=0, le=3600)
    max_batch: int = Field(default=64, ge=1, le=4096, description="images of one prediction")
    reattach_grace_s: float = Field(
        default=20.0,
        ge=0,
        description="how long rounds wait for a hospital that detached before going on without",
    )
    quorum_patience_s: float = Field(
        default=3600.0, gt=0, description="how long a study waits for enough hospitals to be online"
    )
    party_patience_s: float = Field(
        default=600.0, gt=0, description="how long a study waits for a party that is down"
    )
    party_call_timeout_s: float = Field(default=10.0, gt=0)
    closing_timeout_s: float = Field(default=120.0, gt=0, description="for the parties to add one round")
    max_round_attempts: int = Field(default=3, ge=1, le=100)
    preapproved: tuple[str, ...] = Field(
        default=(),
        description="identities of hospitals that need no operator: each is bound to the first key that it "
        "shows. For one machine and for tests; without it an operator approves every hospital's key",
    )
    max_pending_associations: int = Field(
        default=1000, ge=1, description="requests to join that may wait for the operator"
    )
    watch_interval_s: float = Field(
        default=0.2, ge=0, description="shortest time between two messages to one watcher of a study"
    )

    @field_validator("preapproved")
    @classmethod
    def _are_hospitals(cls, uris: tuple[str, ...]) -> tuple[str, ...]:
        try:
            kinds = {Identity.parse(uri).kind for uri in uris}
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        if kinds - {Kind.HOSPITAL}:
            raise ValueError("preapproved lists hospitals only")
        return uris

    @model_validator(mode="after")
    def _three_parties(self) -> Self:
        if sorted(party.index for party in self.parties) != list(PARTIES):
            raise ValueError("parties must list party 0, 1 and 2, each once")
        return self
