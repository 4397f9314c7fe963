"""What the party's logic asks of the world, so that it can be tested without a disk or a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from libs.core.ids import PartyId
from libs.mpc.ring import Ring, RingArray
from libs.rpc.computation import Session
from libs.rpc.identity import Identity
from libs.rpc.link_gauge import LinkQuality
from libs.runtime.audit.entry import Event
from services.smpc_party.domain import (
    Form,
    ModelSpec,
    RoundEvent,
    RoundKey,
    RoundSpec,
    RoundState,
    StoredShare,
)
from services.smpc_party.material import Piece, Shelf
from services.smpc_party.model_use import Counter, HospitalRules


@dataclass(frozen=True)
class ModelRecord:
    """A registered model; `share` once it was dealt or computed."""

    spec: ModelSpec
    upload_id: str | None
    share: StoredShare | None


@dataclass(frozen=True)
class Contribution:
    """One hospital's complete contribution."""

    hospital: Identity
    upload_id: str
    share: StoredShare


@dataclass(frozen=True)
class Prepared:
    """The result of one attempt to close a round, on disk before anybody relies on it."""

    computation_id: str
    survivors: tuple[Identity, ...]
    result: StoredShare
    metrics: StoredShare | None
    sent_bytes: int
    refused: tuple[Identity, ...] = ()
    """Whose contributions the attempt's check left out."""


@dataclass(frozen=True)
class RoundRecord:
    """A round, its state, and the latest attempt's result; of a closed round, the result that counts."""

    spec: RoundSpec
    state: RoundState
    prepared: Prepared | None


class ShareWriter(Protocol):
    """One share on its way to the disk. `left_bytes` are missing."""

    @property
    def left_bytes(self) -> int: ...

    def write(self, data: bytes) -> None:
        """Add bytes."""
        ...

    def finish(self) -> StoredShare:
        """Make it permanent."""
        ...

    def discard(self) -> None:
        """Leave nothing behind; nothing after `finish`."""
        ...


@dataclass(frozen=True)
class Unfinished:
    """A share that was on its way in when the party ended. `note` is what `begin` was given."""

    name: str
    context: str
    ring: Ring
    length: int
    note: str
    age_s: float


class Shares(Protocol):
    """Encrypted files. Methods block."""

    def begin(
        self, *, context: str, form: Form, ring: Ring, length: int, note: str | None = None
    ) -> ShareWriter:
        """Start one share. With a note it is found again, as far as it came, if this process is killed."""
        ...

    def unfinished(self) -> Sequence[Unfinished]:
        """What earlier processes left of shares that had a note."""
        ...

    def resume(self, unfinished: Unfinished) -> tuple[ShareWriter, Iterable[bytes]] | None:
        """The share begun anew, and what the earlier process had sealed of it; None if that is nothing."""
        ...

    def drop_unfinished(self, unfinished: Unfinished) -> None:
        """Delete it. Does nothing the second time."""
        ...

    def save(self, values: RingArray, *, context: str, ring: Ring) -> StoredShare:
        """Store a computed share."""
        ...

    def load(self, share: StoredShare) -> RingArray:
        """The share itself."""
        ...

    def pieces(self, share: StoredShare) -> Iterator[RingArray]:
        """The share in consecutive arrays; those of shares of one length and ring end at the same places."""
        ...

    def delete(self, shares: Sequence[StoredShare]) -> None:
        """Delete files that the index no longer names."""
        ...


class Rounds(Protocol):
    """The index of rounds and models. Methods block; each is one transaction."""

    def add_model(self, spec: ModelSpec) -> None:
        """Register a model."""
        ...

    def model(self, model_id: str) -> ModelRecord:
        """A model."""
        ...

    def evaluable_models(self) -> list[str]:
        """Ids of the models that can be asked."""
        ...

    def put_model_share(self, model_id: str, upload_id: str, share: StoredShare) -> bool:
        """Store a dealt model's share."""
        ...

    def open_round(self, spec: RoundSpec) -> None:
        """Open a round."""
        ...

    def round(self, key: RoundKey) -> RoundRecord:
        """A round."""
        ...

    def move_round(
        self, key: RoundKey, event: RoundEvent, *, attempt: int, refused: Sequence[Identity] = ()
    ) -> RoundRecord:
        """The round after an event; a round that falls short tells whom its check refused."""
        ...

    def put_contribution(
        self, spec: RoundSpec, hospital: Identity, upload_id: str, share: StoredShare
    ) -> bool:
        """Store a contribution to exactly this round."""
        ...

    def contributions(self, key: RoundKey) -> list[Contribution]:
        """What is complete here."""
        ...

    def prepare(self, key: RoundKey, prepared: Prepared) -> list[StoredShare]:
        """Keep an attempt's result; the files of the one it replaces."""
        ...

    def commit(self, key: RoundKey) -> list[StoredShare]:
        """Make the prepared result the round's; the files to delete."""
        ...

    def forget_round(self, key: RoundKey, *, attempt: int) -> list[StoredShare]:
        """Forget a round that is not closed and of no newer attempt; the files to delete."""
        ...

    def share_fetched(self, what: str) -> None:
        """Enter a share's way out into the audit trail, before it goes."""
        ...


class Audit(Protocol):
    """The audit trail, for what nobody may wait for: entries are written within a second or so."""

    def require_room(self) -> None:
        """Raises `Unavailable` when the trail cannot keep up: then nothing new may begin."""
        ...

    def submit(self, event: Event) -> None:
        """Write the event soon. Never blocks."""
        ...


class UseStore(Protocol):
    """Rules and counts of models. Methods block; each is one transaction, on the disk when it returns."""

    def load(self, model_id: str) -> tuple[Mapping[Identity, HospitalRules], Mapping[Counter, int]]:
        """All that is known of one model."""
        ...

    def set_rules(
        self, model_id: str, hospital: Identity, rules: HospitalRules, gone: Iterable[Counter]
    ) -> None:
        """Replace one hospital's rules, and forget counters."""
        ...

    def count(self, model_id: str, counts: Mapping[Counter, int]) -> None:
        """Add images."""
        ...


class Peers(Protocol):
    """The links to the two other parties."""

    def quality(self, peer: PartyId) -> LinkQuality | None:
        """What was measured of a link."""
        ...

    async def session(self, computation_id: str, *, max_bytes: Mapping[PartyId, int]) -> Session:
        """A session over the links as they are now. Raises `Unavailable` when one is down."""
        ...

    async def propose(self, computation_id: str, *, model_id: str, batch: int) -> None:
        """Ask both peers to take part in dealing material."""
        ...


@dataclass(frozen=True, repr=False)
class FetchedModel:
    """A model as another replica of this party stores it."""

    spec: ModelSpec
    upload_id: str
    share: RingArray


class Home(Protocol):
    """This party's replica in cell 0."""

    async def fetch(self, model_id: str) -> FetchedModel:
        """A model that it stores. Raises `NotFound`, `FailedPrecondition`, `Unavailable`."""
        ...

    async def use_model(self, model_id: str, asker: Identity, *, images: int) -> bool:
        """Have images counted, and whether that is under a limit; 0 asks only whether it is allowed.

        Raises `PermissionDenied`, `StorageFull`, `Unavailable`.
        """
        ...


class PieceIndex(Protocol):
    """The list of pieces. Methods block; each is one transaction that is on the disk when it returns."""

    def add(self, piece: Piece) -> None:
        """Put a piece on its shelf."""
        ...

    def take(self, piece_id: str, shelf: Shelf) -> Piece | None:
        """This piece, gone from now on."""
        ...

    def take_oldest(self, shelf: Shelf) -> Piece | None:
        """The oldest piece, gone from now on."""
        ...

    def burn(self, piece_id: str) -> Piece | None:
        """Take a piece out for nobody."""
        ...

    def ready(self) -> list[Piece]:
        """Every piece that can still be taken."""
        ...

    def count(self, shelf: Shelf) -> int:
        """Ready pieces of a shelf."""
        ...


class Blobs(Protocol):
    """Encrypted blobs by name. Methods block."""

    def save(self, name: str, content: Iterable[memoryview], *, size_bytes: int) -> int:
        """Write one; its bytes on the disk."""
        ...

    def load(self, name: str) -> bytearray:
        """Read one."""
        ...

    def delete(self, name: str) -> None:
        """Remove one."""
        ...

    def clean(self, known: Iterable[str]) -> list[str]:
        """Remove all others; those of the known that are missing."""
        ...
