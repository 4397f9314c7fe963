"""Who takes part, and which datasets there are: words and counts that hospitals publish."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from libs.core.errors import InvalidInput
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc.identity import Identity
from services.coordinator.attachments import Attachments
from services.coordinator.descriptions import (
    MAX_NAME,
    MAX_TAG,
    checked_size,
    checked_text,
    dataset_id,
    described,
    normal_tags,
)
from services.coordinator.gateway_ports import CatalogueStore, Dataset, DatasetQuery, Node
from services.coordinator.paging import from_token, page_size, to_token
from services.coordinator.ports import Page


@dataclass(frozen=True)
class ListedNode:
    """A hospital, whether it is attached now, and how many datasets it publishes."""

    node: Node
    online: bool
    datasets: int = 0


@dataclass(frozen=True)
class ListedDataset:
    """A dataset with what the coordinator knows of its hospital."""

    dataset: Dataset
    hospital_name: str
    online: bool
    last_seen: datetime | None


class Catalogue:
    """Nodes and datasets of the hospitals that belong to the federation."""

    def __init__(self, *, store: CatalogueStore, attachments: Attachments) -> None:
        self._store, self._attachments = store, attachments
        self._known: dict[str, Node] | None = None

    def greet(self, hospital: Identity, *, name: str, version: str) -> None:
        """A hospital said its display name; its identity is its certificate's."""
        shown = checked_text("hospital's name", name or hospital.name, limit=MAX_NAME)
        release = checked_text("version", version, limit=MAX_TAG, empty=True)
        self._save(Node(hospital.uri, shown, self._attachments.touch(hospital.uri), release))

    def goodbye(self, hospital: Identity) -> None:
        """A hospital left; when it was last heard of outlives a restart."""
        last_seen = self._attachments.last_seen(hospital.uri)
        node = self._nodes().get(hospital.uri)
        if node is not None and last_seen is not None:
            self._save(replace(node, last_seen=last_seen))

    def membership_changed(self) -> None:
        """Hospitals came to belong here, or no longer do."""
        self._known = None

    def nodes(self) -> list[ListedNode]:
        """All hospitals that belong here and attached at least once, by identity."""
        counts = self._store.dataset_counts()
        return [
            ListedNode(
                replace(node, last_seen=self._last_seen(node)),
                node.identity in self._attachments.present,
                counts.get(node.identity, 0),
            )
            for node in self._nodes().values()
        ]

    def publish(self, hospital: Identity, message: coordinator_pb2.Dataset, *, now: datetime) -> None:
        """Put a dataset into the catalogue, or overwrite its entry. InvalidInput names a wrong field."""
        self._store.save_dataset(described(hospital, message, now=now))

    def withdraw(self, hospital: Identity, *, name: str) -> None:
        """Take a dataset out of the catalogue. Studies that it is part of go on."""
        self._store.remove_dataset(dataset_id(hospital, name))

    def search(self, query: DatasetQuery, *, size: int, token: str) -> Page[ListedDataset]:
        """One page of the matching datasets, by id. The page's key is the next token.

        A page begins behind the last id of the page before, whatever has come and gone meanwhile: an entry
        that is there all the time is on exactly one page.
        """
        listing = ("datasets", query)
        page = self._store.page_of_datasets(
            query,
            online=self._attachments.present,
            after=from_token(token, listing=listing),
            limit=page_size(size),
        )
        listed = tuple(self._listed(dataset) for dataset in page.items)
        return Page(listed, to_token(page.next_key, listing=listing))

    def dataset(self, wanted: str) -> ListedDataset | None:
        """The dataset of this id, or None."""
        found = self._store.datasets([wanted]).get(wanted)
        return None if found is None else self._listed(found)

    def require_online(self, dataset_ids: tuple[str, ...]) -> list[ListedDataset]:
        """The datasets of these ids. InvalidInput names all that are missing or whose hospital is offline."""
        found = self._store.datasets(dataset_ids)
        missing = [wanted for wanted in dataset_ids if wanted not in found]
        if missing:
            raise InvalidInput(
                f"There is no dataset {', '.join(map(repr, missing))}. Search the catalogue for names."
            )
        listed = [self._listed(found[wanted]) for wanted in dataset_ids]
        offline = [entry.dataset.dataset_id for entry in listed if not entry.online]
        if offline:
            raise InvalidInput(
                f"The hospital is offline for {', '.join(offline)}. Wait until it is back, or leave it out."
            )
        return listed

    def _nodes(self) -> dict[str, Node]:
        """Read once and kept: every page of a search names hospitals."""
        if self._known is None:
            self._known = {node.identity: node for node in self._store.nodes()}
        return self._known

    def _save(self, node: Node) -> None:
        self._known = None
        self._store.save_node(node)

    def _last_seen(self, node: Node) -> datetime:
        return self._attachments.last_seen(node.identity) or node.last_seen

    def _listed(self, dataset: Dataset) -> ListedDataset:
        node = self._nodes().get(dataset.hospital)
        return ListedDataset(
            dataset,
            dataset.hospital if node is None else node.name,
            online=dataset.hospital in self._attachments.present,
            last_seen=None if node is None else self._last_seen(node),
        )


def query_of(request: coordinator_pb2.SearchDatasetsRequest) -> DatasetQuery:
    """What is searched for. InvalidInput for what nothing can match."""
    largest = checked_size("largest number of images", request.max_images)
    smallest = checked_size("smallest number of images", request.min_images)
    if largest and largest < smallest:
        raise InvalidInput("The largest number of images is below the smallest. Correct one of them.")
    return DatasetQuery(
        tags=normal_tags(request.tags),
        name_contains=checked_text("part of a name", request.name_contains, limit=MAX_NAME, empty=True),
        min_images=smallest,
        modality=checked_text("modality", request.modality, limit=MAX_TAG, empty=True).casefold(),
        max_images=largest,
        online_only=request.online_only,
    )
