"""What a party knows about models, rounds and predictions, and which step may follow which.

Everything is parsed once, at the edge (`wire.py`), into the frozen types here. Their canonical JSON is
what the index stores and what the three parties compare before they compute together.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self, TypeVar

from libs.core.errors import AlreadyExists, FailedPrecondition, InvalidInput
from libs.core.ids import PartyId
from libs.mpc.norm_bound import MAX_NORM_UNITS
from libs.mpc.norm_check import MAX_METRICS
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.roles import Roles
from libs.rpc.identity import Identity, Kind
from services.smpc_party.model_use import NOBODY, ModelUse

MAX_LENGTH = 1 << 31
"""Elements of one vector: two thousand times ResNet-18."""

MAX_HOSPITALS = 1024

MAX_COMPARED = 64
"""Each is compared with each: 2,016 pairs."""

_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*", re.ASCII)
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


# ---------------------------------------------------------------- state machines, as tables


class RoundState(enum.StrEnum):
    """A training round at this party. A round that was abandoned is forgotten, so it has no state."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class RoundEvent(enum.StrEnum):
    """What moves a round."""

    CONTRIBUTE = "take a contribution"
    CLOSE = "close"
    FALL_SHORT = "fall short of the quorum"
    COMMIT = "commit"
    ABANDON = "be abandoned"


ROUND_TABLE: Mapping[tuple[RoundState, RoundEvent], RoundState] = {
    (RoundState.OPEN, RoundEvent.CONTRIBUTE): RoundState.OPEN,
    (RoundState.OPEN, RoundEvent.CLOSE): RoundState.CLOSING,
    (RoundState.OPEN, RoundEvent.ABANDON): RoundState.OPEN,
    # a failed attempt leaves the round closing; the next attempt goes on from there
    (RoundState.CLOSING, RoundEvent.CLOSE): RoundState.CLOSING,
    (RoundState.CLOSING, RoundEvent.FALL_SHORT): RoundState.OPEN,
    (RoundState.CLOSING, RoundEvent.COMMIT): RoundState.CLOSED,
    (RoundState.CLOSING, RoundEvent.ABANDON): RoundState.CLOSING,
    # the other parties may still have to be brought along
    (RoundState.CLOSED, RoundEvent.CLOSE): RoundState.CLOSED,
}


class PredictionState(enum.StrEnum):
    """One prediction at this party. Whatever ends it, its material is never used again."""

    PREPARING = "preparing"
    READY = "ready"
    EVALUATING = "evaluating"
    FINISHED = "finished"
    BURNED = "burned"


class PredictionEvent(enum.StrEnum):
    """What moves a prediction."""

    PREPARE = "be prepared"
    DEAL = "be dealt"
    EVALUATE = "be evaluated"
    FINISH = "finish"
    BURN = "be burned"


PREDICTION_TABLE: Mapping[tuple[PredictionState, PredictionEvent], PredictionState] = {
    (PredictionState.PREPARING, PredictionEvent.PREPARE): PredictionState.READY,
    (PredictionState.PREPARING, PredictionEvent.DEAL): PredictionState.FINISHED,  # all a dealer does
    (PredictionState.PREPARING, PredictionEvent.BURN): PredictionState.BURNED,
    (PredictionState.READY, PredictionEvent.EVALUATE): PredictionState.EVALUATING,
    (PredictionState.READY, PredictionEvent.BURN): PredictionState.BURNED,
    (PredictionState.EVALUATING, PredictionEvent.FINISH): PredictionState.FINISHED,
    (PredictionState.EVALUATING, PredictionEvent.BURN): PredictionState.BURNED,
}

State = TypeVar("State", bound=enum.StrEnum)
Event = TypeVar("Event", bound=enum.StrEnum)


def move(table: Mapping[tuple[State, Event], State], state: State, event: Event, *, what: str) -> State:
    """The state after `event`. Raises `FailedPrecondition` for a step that the table does not have."""
    try:
        return table[state, event]
    except KeyError:
        raise FailedPrecondition(f"{what} is {state.value} and cannot {event.value} now.") from None


# ---------------------------------------------------------------- vectors


class Form(enum.StrEnum):
    """How a share is kept: as the 16-byte seed it came as, or in full."""

    SEED = "seed"
    VECTOR = "vector"


@dataclass(frozen=True)
class StoredShare:
    """One encrypted file: `name` in the store, sealed for `context` and for nothing else."""

    name: str
    context: str
    form: Form
    ring: Ring
    length: int
    size_bytes: int


@dataclass(frozen=True)
class ModelSpec:
    """A version of a model: who may deal it, fetch it and ask it. No dealer: a round makes it.

    `hospitals` are those whose contributions are in it; a prediction needs the consent of each of them
    (`model_use.py`).
    """

    model_id: str
    ring: Ring
    length: int
    dealer: Identity | None
    readers: frozenset[Identity]
    plan: bytes
    use: ModelUse = NOBODY
    hospitals: frozenset[Identity] = frozenset()

    def __post_init__(self) -> None:
        check_model_id(self.model_id)
        _check_length(self.length)

    @property
    def context(self) -> str:
        """What its share is sealed for."""
        return f"model:{self.model_id}"

    def to_json(self) -> str:
        """Canonical: equal specs give equal text."""
        return _canonical(
            {
                "model_id": self.model_id,
                "ring": self.ring.bits,
                "length": self.length,
                "dealer": self.dealer.uri if self.dealer else None,
                "readers": _uris(self.readers),
                "plan": self.plan.decode(),
                "use": self.use.to_data(),
                "hospitals": _uris(self.hospitals),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The spec that `to_json` wrote."""
        data = json.loads(text)
        return cls(
            data["model_id"],
            Ring(data["ring"]),
            data["length"],
            Identity.parse(data["dealer"]) if data["dealer"] else None,
            _identities(data["readers"]),
            data["plan"].encode(),
            ModelUse.from_data(data["use"]),
            _identities(data["hospitals"]),
        )


# ---------------------------------------------------------------- rounds


@dataclass(frozen=True, order=True)
class RoundKey:
    """One training round of one study."""

    study_id: str
    number: int

    def __post_init__(self) -> None:
        check_plain_id(self.study_id, what="study")
        if not 0 <= self.number < 1 << 31:
            raise InvalidInput("A round's number is between 0 and 2^31.")

    def __str__(self) -> str:
        return f"round {self.number} of study {self.study_id}"


@dataclass(frozen=True)
class Participant:
    """A hospital of a round and its share of all samples."""

    hospital: Identity
    weight: Fraction


@dataclass(frozen=True)
class Terms:
    """What a hospital requires of the round that its contribution goes into (types.proto)."""

    quorum: int
    hospitals: frozenset[Identity]
    readers: frozenset[Identity]
    metrics_readers: frozenset[Identity]
    use: ModelUse
    weight: Fraction
    metrics_length: int
    compiled_plan_hash: str
    result_model_id: str
    max_norm: int = 0
    noise_std: int = 0
    same: bool = False


@dataclass(frozen=True)
class RoundSpec:
    """What the hospitals of a round send and what becomes of it."""

    key: RoundKey
    ring: Ring
    update_length: int
    metrics_length: int
    participants: tuple[Participant, ...]
    quorum: int
    base_model_id: str
    result_model_id: str
    readers: frozenset[Identity]
    metrics_readers: frozenset[Identity]
    plan: bytes
    use: ModelUse = NOBODY
    attempt: int = 0
    """Which try of the round this is; the weights differ between tries."""
    max_norm: int = 0
    """Largest L2 norm of an update before it is weighed, in ring units; 0: contributions are not checked."""
    noise_std: int = 0
    """Of the noise that any two parties add to the sum of updates, in ring units."""
    same: bool = False
    """All hospitals send one vector, equally weighed; what differs from most of them is left out."""

    def __post_init__(self) -> None:
        _check_length(self.update_length)
        if not 0 <= self.attempt < 1 << 31:
            raise InvalidInput("A round's attempt is between 0 and 2^31.")
        if not 0 <= self.metrics_length <= MAX_LENGTH:
            raise InvalidInput("metrics_length is out of range.")
        if not 0 <= self.max_norm < MAX_NORM_UNITS or not 0 <= self.noise_std < 1 << self.ring.bits - 2:
            raise InvalidInput("A round's largest norm or its noise does not fit the ring. Lower scale_bits.")
        if self.max_norm and (self.ring is not Ring.RING_32 or self.metrics_length > MAX_METRICS):
            raise InvalidInput(
                f"Contributions are checked in the 32-bit ring, with up to {MAX_METRICS} metrics in each."
            )
        self._check_comparison()
        check_model_id(self.result_model_id)
        if self.base_model_id:
            check_model_id(self.base_model_id)
        if self.base_model_id == self.result_model_id:
            raise InvalidInput(
                "The result of a round needs a name of its own, other than the base version's."
            )
        self._check_participants()

    def _check_comparison(self) -> None:
        """Vectors are compared by their sketches' differences, so all are weighed alike."""
        if not self.same:
            return
        alike = len({participant.weight for participant in self.participants}) == 1
        if self.max_norm or self.metrics_length or self.ring is not Ring.RING_32 or not alike:
            raise InvalidInput(
                "Contributions are compared in the 32-bit ring, equally weighed, without metrics and norms. "
                "A model that needs the 64-bit ring can be released by a plan without contribution_check."
            )
        if self.quorum < 2:
            raise InvalidInput("Contributions that are compared need a quorum of two or more.")
        if len(self.participants) > MAX_COMPARED:
            raise InvalidInput(f"At most {MAX_COMPARED} contributions are compared with each other.")

    @property
    def checked(self) -> bool:
        """Whether contributions are sketched before they are added."""
        return bool(self.max_norm) or self.same

    def _check_participants(self) -> None:
        hospitals = [participant.hospital for participant in self.participants]
        if not 0 < len(hospitals) <= MAX_HOSPITALS or len(set(hospitals)) != len(hospitals):
            raise InvalidInput(f"A round has 1 to {MAX_HOSPITALS} hospitals, each named once.")
        if any(hospital.kind is not Kind.HOSPITAL for hospital in hospitals):
            raise InvalidInput("Only hospitals take part in a round.")
        if any(participant.weight <= 0 for participant in self.participants):
            raise InvalidInput("Every participant's weight is positive.")
        if sum(participant.weight for participant in self.participants) != 1:
            raise InvalidInput("The weights of a round's participants must add up to exactly 1.")
        if not 1 <= self.quorum <= len(hospitals):
            raise InvalidInput("The quorum is between 1 and the number of participants.")

    @property
    def length(self) -> int:
        """Elements of one contribution."""
        return self.update_length + self.metrics_length

    @property
    def plan_hash(self) -> str:
        """Of the compiled plan, whose JSON is canonical; empty without one."""
        return hashlib.sha256(self.plan).hexdigest() if self.plan else ""

    @property
    def result_context(self) -> str:
        """What the share of the result is sealed for, whoever contributed to it."""
        return self.result(()).context

    def result(self, survivors: Iterable[Identity]) -> ModelSpec:
        """The model that this round makes of the contributions of these hospitals."""
        return ModelSpec(
            self.result_model_id,
            self.ring,
            self.update_length,
            None,
            self.readers,
            self.plan,
            self.use,
            frozenset(survivors),
        )

    @property
    def metrics_context(self) -> str:
        """What the share of the summed metrics is sealed for."""
        return f"metrics:{self.key.study_id}:{self.key.number}"

    def check_attempt(self, attempt: int) -> None:
        """Raise `FailedPrecondition` unless this is the attempt that is meant.

        A contribution's weight belongs to the participants of one attempt: in another it would falsify the
        average. And an order that comes late must not end the attempt that followed.
        """
        if attempt != self.attempt:
            raise FailedPrecondition(
                f"Try {attempt} of {self.key} is over or has not begun; try {self.attempt} is open. "
                "Wait for the coordinator's next order."
            )

    def check_terms(self, hospital: Identity, terms: Terms) -> None:
        """Raise `FailedPrecondition` unless this round is at least what the hospital requires.

        The three parties compare their specs before they add, so no round that one of them holds to be too
        weak is ever closed: a coordinator alone cannot have a contribution added to nothing, nor part of an
        update as metrics, nor a released model asked by another plan, or under a name that no
        hospital's rules are for.
        """
        weights = {participant.hospital: participant.weight for participant in self.participants}
        rules = {
            "has a lower quorum": self.quorum >= terms.quorum,
            "joins other hospitals": weights.keys() <= terms.hospitals,
            "has other readers": self.readers <= terms.readers,
            "has other readers of its metrics": self.metrics_readers <= terms.metrics_readers,
            "lets others ask the result, or more often": self.use.within(terms.use),
            "weighs it differently": weights.get(hospital) == terms.weight,
            "has more or less metrics": self.metrics_length == terms.metrics_length,
            "evaluates the result by another plan": self.plan_hash == terms.compiled_plan_hash,
            "checks contributions otherwise": self.max_norm == terms.max_norm,
            "compares contributions otherwise": self.same == terms.same,
            "adds other noise": self.noise_std == terms.noise_std,
            "names the result otherwise": terms.result_model_id in ("", self.result_model_id),
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise FailedPrecondition(
                f"The {self.key} {' and '.join(broken)} than {hospital} approved. Nothing was stored; tell "
                "the study's operator."
            )

    def contribution_context(self, hospital: Identity) -> str:
        """What one hospital's contribution is sealed for."""
        return f"contribution:{self.key.study_id}:{self.key.number}:{hospital.uri}"

    def to_json(self) -> str:
        """Canonical: equal specs give equal text, on all three parties."""
        return _canonical(
            {
                "study_id": self.key.study_id,
                "number": self.key.number,
                "ring": self.ring.bits,
                "update_length": self.update_length,
                "metrics_length": self.metrics_length,
                "participants": [
                    [p.hospital.uri, p.weight.numerator, p.weight.denominator] for p in self.participants
                ],
                "quorum": self.quorum,
                "base_model_id": self.base_model_id,
                "result_model_id": self.result_model_id,
                "readers": _uris(self.readers),
                "metrics_readers": _uris(self.metrics_readers),
                "plan": self.plan.decode(),
                "use": self.use.to_data(),
                "attempt": self.attempt,
                "max_norm": self.max_norm,
                "noise_std": self.noise_std,
                "same": self.same,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The spec that `to_json` wrote."""
        data = json.loads(text)
        return cls(
            key=RoundKey(data["study_id"], data["number"]),
            ring=Ring(data["ring"]),
            update_length=data["update_length"],
            metrics_length=data["metrics_length"],
            participants=tuple(
                Participant(Identity.parse(u), Fraction(n, d)) for u, n, d in data["participants"]
            ),
            quorum=data["quorum"],
            base_model_id=data["base_model_id"],
            result_model_id=data["result_model_id"],
            readers=_identities(data["readers"]),
            metrics_readers=_identities(data["metrics_readers"]),
            plan=data["plan"].encode(),
            use=ModelUse.from_data(data["use"]),
            attempt=data["attempt"],
            # Rounds that the previous release stored have neither.
            max_norm=data.get("max_norm", 0),
            noise_std=data.get("noise_std", 0),
            same=data.get("same", False),
        )


# ---------------------------------------------------------------- predictions


@dataclass(frozen=True)
class PredictionSpec:
    """One prediction: on what, for whom, in which roles."""

    computation_id: str
    model_id: str
    batch: int
    roles: Roles
    client: Identity
    deadline_s: float

    def __post_init__(self) -> None:
        check_plain_id(self.computation_id, what="computation")
        check_model_id(self.model_id)

    def is_dealer(self, me: PartyId) -> bool:
        """Whether this party deals; else it evaluates."""
        return me == self.roles.dealer

    def terms(self, plan_hash: str) -> bytes:
        """What the three parties must have been told alike."""
        roles = [self.roles.dealer, self.roles.first, self.roles.second]
        terms = {"predict": self.model_id, "plan": plan_hash, "batch": self.batch, "roles": roles}
        return _canonical({**terms, "client": self.client.uri}).encode()


# ---------------------------------------------------------------- names


def check_model_id(model_id: str) -> None:
    """`<study>/round-3` or the like; a name, never a path."""
    if len(model_id) > 200 or not _MODEL_ID.fullmatch(model_id):
        raise InvalidInput("A model id is up to 200 letters, digits, '.', '_', '-', in parts joined by '/'.")


def check_plain_id(text: str, *, what: str) -> None:
    """An id without slashes."""
    if len(text) > 128 or not _PLAIN_ID.fullmatch(text):
        raise InvalidInput(f"A {what} id is up to 128 letters, digits, '.', '_' and '-'.")


def check_same_upload(stored: str, offered: str, *, what: str) -> None:
    """Raise `AlreadyExists` unless this is the upload that is stored."""
    if stored != offered:
        raise AlreadyExists(f"{what} is stored already, from another upload. One is all that counts.")


def _check_length(length: int) -> None:
    if not 0 < length <= MAX_LENGTH:
        raise InvalidInput(f"A vector has between 1 and {MAX_LENGTH} elements.")


def _canonical(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _uris(identities: Iterable[Identity]) -> list[str]:
    return sorted(identity.uri for identity in identities)


def _identities(uris: Iterable[str]) -> frozenset[Identity]:
    return frozenset(Identity.parse(uri) for uri in uris)
