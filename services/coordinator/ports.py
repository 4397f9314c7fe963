"""What the coordinator's logic needs from outside: storage, the three parties, and a compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

from libs.core.ids import PartyId
from libs.fl.training_plan import TrainingPlan
from libs.mpc.ring import Ring
from libs.runtime.audit.entry import Event
from services.coordinator.domain import CompiledPlan, Study
from services.coordinator.model_access import NOBODY, ModelUse

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Part of a list, ordered by a key that never changes. `next_key` is empty on the last page."""

    items: tuple[T, ...]
    next_key: str


@dataclass(frozen=True)
class PartyAddress:
    """A party as hospitals and clients must address and recognise it."""

    index: PartyId
    address: str
    identity: str


@dataclass(frozen=True)
class Model:
    """A model that can be asked, or will be once its owner has dealt it.

    `use` is what the parties were told when it was made; what hospitals tell them later is not known here.
    """

    model_id: str
    name: str
    plan: bytes
    plan_hash: str
    owner: str
    created_at: datetime
    ready: bool
    use: ModelUse


class Repository(Protocol):
    """Studies and models, which survive a restart.

    Each call is one transaction; none awaits (see DECISIONS.md).
    """

    def record(self, event: Event) -> None:
        """Enter something into the audit trail that changes nothing else; changes enter themselves."""
        ...

    def add_study(self, study: Study) -> None:
        """Store a new study. AlreadyExists if its id is taken."""
        ...

    def study(self, study_id: str) -> Study | None: ...

    def update_study(self, study_id: str, change: Callable[[Study], Study]) -> Study:
        """Read, change and write in one transaction; NotFound if there is none.

        Nothing is written when `change` raises.
        """
        ...

    def live_studies(self) -> list[Study]: ...

    def studies_with_untold_end(self, hospital: str) -> list[Study]:
        """Ended studies of which this hospital was not told yet."""
        ...

    def page_of_studies(self, *, after: str, limit: int) -> Page[Study]:
        """In the order of creation, from behind the key `after` (empty: from the first)."""
        ...

    def add_model(self, model: Model) -> Model:
        """Store a model, or give back the one that has its id already."""
        ...

    def model(self, model_id: str) -> Model | None: ...

    def mark_model_ready(self, model_id: str) -> None: ...

    def page_of_models(self, *, after: str, limit: int) -> Page[Model]:
        """In the order of creation."""
        ...


@dataclass(frozen=True)
class ModelRegistration:
    """A vector that its owner will deal to the parties."""

    model_id: str
    ring: Ring
    length: int
    dealer: str
    readers: tuple[str, ...]
    plan: bytes = b""
    use: ModelUse = NOBODY


@dataclass(frozen=True)
class RoundKey:
    """One attempt at one round."""

    study_id: str
    number: int
    attempt: int


@dataclass(frozen=True)
class RoundOpening:
    """What the parties must know to add a round's contributions. No array, no value."""

    key: RoundKey
    ring: Ring
    update_length: int
    metrics_length: int
    weights: Mapping[str, Fraction]
    quorum: int
    base_model_id: str
    result_model_id: str
    readers: tuple[str, ...]
    metrics_readers: tuple[str, ...]
    plan: bytes = b""
    use: ModelUse = NOBODY
    max_norm: int = 0
    noise_std: int = 0
    same: bool = False


@dataclass(frozen=True)
class RoundClosing:
    """What the three parties agreed on. `survivors` is None when fewer than the quorum were left.

    `refused` are those whose complete contributions broke the round's check.
    """

    survivors: tuple[str, ...] | None
    bytes_between_parties: int
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictionOpening:
    """One encrypted prediction and its roles."""

    computation_id: str
    model_id: str
    batch: int
    dealer: PartyId
    first_evaluator: PartyId
    second_evaluator: PartyId
    client: str
    deadline_s: float


class Parties(Protocol):
    """The three parties, always asked together. An error names the party it comes from."""

    @property
    def addresses(self) -> tuple[PartyAddress, ...]: ...

    async def register_model(self, registration: ModelRegistration) -> None: ...

    async def open_round(self, opening: RoundOpening) -> None: ...

    async def close_round(self, key: RoundKey, *, computation_id: str) -> RoundClosing: ...

    async def abandon_round(self, key: RoundKey) -> None: ...

    @property
    def cells(self) -> int:
        """How many groups of three can predict side by side; cell 0 is the one of `addresses`."""
        ...

    def cell(self, number: int) -> tuple[PartyAddress, ...]:
        """The parties of one cell, by index."""
        ...

    async def open_prediction(self, opening: PredictionOpening, *, cell: int) -> bool:
        """Assign the roles; whether a party counts it under a limit."""
        ...


@dataclass(frozen=True)
class ModelShape:
    """What is known of a compiled plan without running it."""

    hash: str
    json: bytes
    ring: Ring
    parameter_length: int


class Compiler(Protocol):
    """Architectures and compiled plans. Works on shapes and bounds; it never sees a trained weight."""

    async def count_parameters(self, plan: TrainingPlan) -> int:
        """Elements of a version, as the strategy has it. InvalidInput for an unknown model or size."""
        ...

    async def compile(self, plan: TrainingPlan, bounds: Sequence[Mapping[str, int]]) -> CompiledPlan:
        """The plan for the largest of the bounds. UnsupportedModel or InvalidInput names what is wrong."""
        ...

    async def describe(self, plan_json: bytes) -> ModelShape:
        """Check a plan that somebody else compiled. InvalidInput if it is none."""
        ...
