"""Who takes part, and which datasets there are: words and counts that hospitals publish."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from libs.core.errors import InvalidInput
from libs.rpc.identity import Identity
from services.coordinator.attachments import Attachments
from services.coordinator.paging import from_token, page_size, to_token
from services.coordinator.ports import Dataset, DatasetQuery, Node, Page, Repository

MAX_NAME = 128
MAX_DESCRIPTION = 4000
MAX_TAGS = 32
MAX_TAG = 64


@dataclass(frozen=True)
class ListedNode:
    """A hospital and whether it is attached now."""

    node: Node
    online: bool


@dataclass(frozen=True)
class ListedDataset:
    """A dataset with what the coordinator knows of its hospital."""

    dataset: Dataset
    hospital_name: str
    online: bool


class Catalogue:
    """Nodes and datasets."""

    def __init__(self, *, repository: Repository, attachments: Attachments) -> None:
        self._repository, self._attachments = repository, attachments

    def greet(self, hospital: Identity, *, name: str) -> None:
        """A hospital said its display name; its identity is its certificate's."""
        shown = checked_text("hospital's name", name or hospital.name, limit=MAX_NAME)
        self._repository.save_node(Node(hospital.uri, shown, self._attachments.touch(hospital.uri)))

    def goodbye(self, hospital: Identity) -> None:
        """A hospital left; when it was last heard of outlives a restart."""
        last_seen = self._attachments.last_seen(hospital.uri)
        for node in self._repository.nodes():
            if node.identity == hospital.uri and last_seen is not None:
                self._repository.save_node(Node(node.identity, node.name, last_seen))

    def nodes(self) -> list[ListedNode]:
        """All hospitals that ever attached, by identity."""
        listed = []
        for node in self._repository.nodes():
            seen = self._attachments.last_seen(node.identity) or node.last_seen
            online = node.identity in self._attachments.present
            listed.append(ListedNode(Node(node.identity, node.name, seen), online))
        return listed

    def publish(
        self,
        hospital: Identity,
        *,
        name: str,
        description: str,
        tags: Iterable[str],
        modality: str,
        images: int,
    ) -> None:
        """Put a dataset into the catalogue, or overwrite its entry. InvalidInput names a wrong field."""
        plain = checked_text("dataset's name", name, limit=MAX_NAME)
        if "/" in plain:
            raise InvalidInput("A dataset's name has no slash. Publish it under another name.")
        if images < 1:
            raise InvalidInput("A dataset has at least one image.")
        self._repository.save_dataset(
            Dataset(
                dataset_id=dataset_id(hospital, plain),
                hospital=hospital.uri,
                name=plain,
                description=checked_text("description", description, limit=MAX_DESCRIPTION, empty=True),
                tags=normal_tags(tags),
                modality=checked_text("modality", modality, limit=MAX_TAG, empty=True),
                images=images,
            )
        )

    def withdraw(self, hospital: Identity, *, name: str) -> None:
        """Take a dataset out of the catalogue. Studies that it is part of go on."""
        self._repository.remove_dataset(dataset_id(hospital, name))

    def search(self, query: DatasetQuery, *, size: int, token: str) -> Page[ListedDataset]:
        """One page of the matching datasets, online or not, by id. The page's key is the next token."""
        listing = ("datasets", query)
        page = self._repository.page_of_datasets(
            query, after=from_token(token, listing=listing), limit=page_size(size)
        )
        names = {node.identity: node.name for node in self._repository.nodes()}
        listed = tuple(self._listed(dataset, names) for dataset in page.items)
        return Page(listed, to_token(page.next_key, listing=listing))

    def require_online(self, dataset_ids: tuple[str, ...]) -> list[ListedDataset]:
        """The datasets of these ids. InvalidInput names all that are missing or whose hospital is offline."""
        found = self._repository.datasets(dataset_ids)
        missing = [wanted for wanted in dataset_ids if wanted not in found]
        if missing:
            raise InvalidInput(
                f"There is no dataset {', '.join(map(repr, missing))}. Search the catalogue for names."
            )
        names = {node.identity: node.name for node in self._repository.nodes()}
        listed = [self._listed(found[wanted], names) for wanted in dataset_ids]
        offline = [entry.dataset.dataset_id for entry in listed if not entry.online]
        if offline:
            raise InvalidInput(
                f"The hospital is offline for {', '.join(offline)}. Wait until it is back, or leave it out."
            )
        return listed

    def _listed(self, dataset: Dataset, names: dict[str, str]) -> ListedDataset:
        name = names.get(dataset.hospital, dataset.hospital)
        return ListedDataset(dataset, name, online=dataset.hospital in self._attachments.present)


def dataset_id(hospital: Identity, name: str) -> str:
    """`<node>/<name>`: a hospital cannot publish under another's name."""
    return f"{hospital.name}/{name}"


def normal_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Trimmed, in lower case, sorted, each once: "X-Ray" finds "x-ray". InvalidInput above the limits."""
    normal = tuple(sorted({tag.strip().casefold() for tag in tags} - {""}))
    if len(normal) > MAX_TAGS or any(len(tag) > MAX_TAG for tag in normal):
        raise InvalidInput(f"There are at most {MAX_TAGS} tags of at most {MAX_TAG} characters each.")
    return normal


def checked_text(what: str, text: str, *, limit: int, empty: bool = False) -> str:
    """The trimmed text. InvalidInput if it is too long, not printable, or empty without `empty`."""
    trimmed = text.strip()
    if len(trimmed) > limit or not trimmed.replace("\n", " ").isprintable() or not (trimmed or empty):
        raise InvalidInput(f"The {what} is printable text of {0 if empty else 1} to {limit} characters.")
    return trimmed
