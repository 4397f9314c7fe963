"""What the gateway keeps: nodes and whether they belong here, data sets, requests for access."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from services.coordinator.domain import SignedText
from services.coordinator.ports import Page
from services.coordinator.states import AccessState, AssociationState


@dataclass(frozen=True)
class Node:
    """A hospital that has attached at least once. `version` is what it said it runs."""

    identity: str
    name: str
    last_seen: datetime
    version: str = ""


@dataclass(frozen=True)
class Dataset:
    """A published dataset as its hospital describes it: words, hashes and as many counts as it discloses.

    `schema` and `mock_recipe` are canonical JSON, or empty. `disclosure` is "" for hospitals that say nothing
    about it.
    """

    dataset_id: str
    hospital: str
    name: str
    description: str
    tags: tuple[str, ...]
    modality: str
    images: int
    published_at: datetime
    version: int = 0
    licence: str = ""
    content_hash: str = ""
    schema: bytes = b""
    disclosed_counts: Mapping[str, int] = field(default_factory=dict)
    disclosure: str = ""
    mock_recipe: bytes = b""
    mock_hash: str = ""


@dataclass(frozen=True)
class DatasetQuery:
    """A dataset matches when it has all tags, the text in its name, the modality, and a fitting size."""

    tags: tuple[str, ...] = ()
    name_contains: str = ""
    min_images: int = 0
    modality: str = ""
    max_images: int = 0
    online_only: bool = False


@dataclass(frozen=True)
class Association:
    """One key with which a hospital asked to belong here.

    `key_sha256`: of the SubjectPublicKeyInfo of its certificate, hex.
    """

    hospital: str
    key_sha256: str
    name: str
    state: AssociationState
    requested_at: datetime
    decided_at: datetime | None = None
    decided_by: str = ""
    reason: str = ""

    def decided(self, state: AssociationState, *, at: datetime, by: str, reason: str) -> Association:
        """The same association after somebody's decision."""
        return replace(self, state=state, decided_at=at, decided_by=by, reason=reason)


@dataclass(frozen=True)
class AnsweredCall:
    """A call that changed something: the same caller and id again must ask for the same."""

    caller: str
    request_id: str
    content_sha256: str


@dataclass(frozen=True)
class Grant:
    """What a hospital said about a request. Costs are exact decimal text; empty before an approval."""

    state: AccessState = AccessState.PENDING
    reason: str = ""
    epsilon: str = ""
    delta: str = ""
    uses: int = 0
    expires_at: datetime | None = None


@dataclass(frozen=True)
class AccessRequest:
    """What a scientist or clinician asked a hospital for, in its own signed words."""

    request_id: str
    requester: str
    requested_by: str
    requested_at: datetime
    hospital: str
    dataset_id: str
    purpose: str
    plan_hash: str
    model_id: str
    epsilon: str
    delta: str
    uses: int
    training_plan: bytes
    statement: SignedText
    delivered: bool = False
    grant: Grant = field(default_factory=Grant)


class CatalogueStore(Protocol):
    """Nodes and datasets. Each call is one transaction, or one statement; none awaits (see DECISIONS.md)."""

    def save_node(self, node: Node) -> None: ...

    def nodes(self) -> list[Node]:
        """Those with an approved association, by identity."""
        ...

    def save_dataset(self, dataset: Dataset) -> None:
        """Store or overwrite. PermissionDenied unless the hospital's association is approved."""
        ...

    def remove_dataset(self, dataset_id: str) -> None: ...

    def datasets(self, dataset_ids: Sequence[str]) -> dict[str, Dataset]:
        """Those of the ids that exist."""
        ...

    def dataset_counts(self) -> dict[str, int]:
        """Hospital -> number of its datasets; without those that have none."""
        ...

    def page_of_datasets(
        self, query: DatasetQuery, *, online: Collection[str] = (), after: str, limit: int
    ) -> Page[Dataset]:
        """In the order of ids. `online`: the hospitals that `query.online_only` stands for."""
        ...


class AssociationStore(Protocol):
    """Who belongs to the federation."""

    def association(self, hospital: str, key_sha256: str) -> Association | None: ...

    def associations_of(self, hospital: str) -> list[Association]:
        """All keys of one hospital, oldest first."""
        ...

    def pending_associations(self) -> int:
        """How many wait for the operator."""
        ...

    def save_associations(
        self, associations: Sequence[Association], *, call: AnsweredCall | None = None
    ) -> None:
        """Store them and the call that led to them, and take hospitals that have none approved any more out
        of the catalogue: all or nothing.
        """
        ...

    def answered(self, caller: str, request_id: str) -> AnsweredCall | None: ...

    def page_of_associations(
        self, state: AssociationState | None, *, after: str, limit: int
    ) -> Page[Association]:
        """In the order of asking."""
        ...


class AccessStore(Protocol):
    """Requests for access."""

    def add_access_request(self, request: AccessRequest) -> AccessRequest:
        """Store it, or give back the one that has its id already."""
        ...

    def access_request(self, request_id: str) -> AccessRequest | None: ...

    def mark_delivered(self, request_id: str) -> None: ...

    def save_grant(self, request_id: str, grant: Grant) -> None: ...

    def undecided_access_requests(self, hospital: str) -> list[AccessRequest]:
        """Those that this hospital has to be asked, oldest first."""
        ...

    def open_requests_of(self, requester: str, requested_by: str) -> int:
        """How many of this person's requests are undecided."""
        ...

    def page_of_access_requests(
        self, owner: tuple[str, str] | None, *, after: str, limit: int
    ) -> Page[AccessRequest]:
        """In the order of asking: those of (requester, requested_by), or all."""
        ...
