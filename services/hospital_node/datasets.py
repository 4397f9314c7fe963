"""Publishing and withdrawing data sets: what is checked, what is told, and what becomes a new version."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from libs.core.clock import Clock
from libs.core.errors import InvalidInput, NotFound
from libs.data.disclosure import CountDisclosure, disclose
from libs.data.mock import DEFAULT_IMAGES, MAX_IMAGES, MockRecipe, make_mock, recipe_for
from libs.data.schema import DatasetSchema
from libs.runtime.audit.entry import Event
from services.hospital_node.dicomweb.archives import Archives
from services.hospital_node.domain import Dataset
from services.hospital_node.ports import Datasets, Inspection, Shelf, Worker
from services.hospital_node.worker.datasets import find_files

MAX_TAGS = 32
MAX_DESCRIPTION_CHARACTERS = 2000
MAX_LICENCE_CHARACTERS = 1000

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_TAG = re.compile(r"[\w][\w .:+-]{0,63}")


@dataclass(frozen=True)
class Publication:
    """What an owner wants to publish, and how much of it is to be told. Raises InvalidInput in words.

    `path` is on the node's own disk; with `dicomweb`, an archive's name, it is the list of what to fetch from
    there. `mock_images` 0 means a default number.
    """

    name: str
    path: str
    description: str = ""
    tags: tuple[str, ...] = ()
    licence: str = ""
    disclosure: CountDisclosure = CountDisclosure.ROUNDED
    mock_images: int = 0
    dicomweb: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", tuple(dict.fromkeys(self.tags)))
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(
                "A data set's name has 1 to 63 lower-case letters, digits, dots, hyphens and underscores, "
                "and begins with a letter or digit."
            )
        _check_text("description", self.description, limit=MAX_DESCRIPTION_CHARACTERS)
        _check_text("licence", self.licence, limit=MAX_LICENCE_CHARACTERS)
        if len(self.tags) > MAX_TAGS or not all(_TAG.fullmatch(tag) for tag in self.tags):
            raise InvalidInput(
                f"There are at most {MAX_TAGS} tags, each of 1 to 64 letters, digits and . : + - _."
            )
        if self.mock_images > MAX_IMAGES:
            raise InvalidInput(f"A mock has at most {MAX_IMAGES} images. Ask for fewer.")


@dataclass(frozen=True)
class Draft:
    """A data set before it is published, and what is found in its files that identifies somebody.

    `identification` is as in `ports.Inspection`. It goes to the owner and is not a part of the data set.
    """

    dataset: Dataset
    identification: str


class Publisher:
    """Reads files in a worker of its own, so that publishing never waits for a training round."""

    def __init__(
        self,
        *,
        datasets: Datasets,
        worker: Worker,
        data_roots: Sequence[Path],
        clock: Clock,
        draw_seed: Callable[[], int],
        archives: Archives,
    ) -> None:
        """`draw_seed` draws the seed of a new mock, below 2^32."""
        self._archives = archives
        self._datasets, self._worker, self._clock, self._draw_seed = datasets, worker, clock, draw_seed
        self._data_roots = tuple(data_roots)
        self._reading = asyncio.Lock()

    async def inspect(self, path: str) -> Inspection:
        """What there is to learn from at `path`.

        Raises InvalidInput, TooLarge, PermissionDenied (outside the data roots), in words for the owner.
        """
        async with self._reading:  # the worker ends after each; another's files must not end with it
            try:
                return await self._worker.inspect(path=Path(path), data_roots=self._data_roots)
            finally:
                await self._worker.stop()

    async def draft(self, publication: Publication) -> Draft:
        """The data set as it would be published, with its mock made once. Nothing is stored.

        With `dicomweb`, its images are fetched first, and removed again if it cannot be published. Raises
        what `inspect` and `Archives.fetch` do.
        """
        if not publication.dicomweb:
            return await self._draft(publication)
        labels = find_files(Path(publication.path), data_roots=self._data_roots)
        if not labels.path.is_file():
            raise InvalidInput("With a DICOMweb server, the path is that of a CSV file that lists images.")
        fetched = await self._archives.fetch(publication.dicomweb, labels=labels.path)
        try:
            return await self._draft(replace(publication, path=str(fetched.folder.resolve())))
        except BaseException:
            fetched.discard()
            raise

    async def _draft(self, publication: Publication) -> Draft:
        found = await self.inspect(publication.path)
        schema = DatasetSchema.from_json(found.schema.encode())
        counts = disclose(found.images_per_class, patients=found.patients, policy=publication.disclosure)
        wanted = recipe_for(
            schema, counts, seed=self._draw_seed(), images=publication.mock_images or DEFAULT_IMAGES
        )
        recipe, mock_hash = await self._mock(publication.name, wanted)
        dataset = Dataset(
            name=publication.name,
            description=publication.description,
            tags=publication.tags,
            path=publication.path,
            images=found.images,
            patients=found.patients,
            images_per_class=found.images_per_class,
            content_hash=found.content_hash,
            published_at=self._clock.now(),
            licence=publication.licence,
            disclosure=publication.disclosure,
            schema=schema.canonical_json(),
            mock_recipe=recipe,
            mock_hash=mock_hash,
        )
        return Draft(dataset=dataset, identification=found.identification)

    async def _mock(self, name: str, wanted: MockRecipe) -> tuple[bytes, str]:
        """Recipe and hash: those of the latest version where only the seed would differ, else new ones."""
        latest = await self._datasets.run(lambda shelf: shelf.newest(name))
        if latest is not None and _unseeded(latest.mock_recipe) == _unseeded(wanted.canonical_json()):
            return latest.mock_recipe, latest.mock_hash
        mock = await asyncio.to_thread(make_mock, wanted)
        return wanted.canonical_json(), mock.content_hash


def publish(shelf: Shelf, draft: Dataset, *, actor: str, request_id: str) -> Dataset:
    """What is published under the draft's name afterwards: its latest version if that says the same, else
    the draft as the next one.

    An approval refers to a content hash, so it holds for a version that differs in words only.
    """
    latest = shelf.newest(draft.name)
    published = latest is not None and latest.withdrawn_at is None
    if latest is not None and published:
        if _meaning(latest) == _meaning(draft):
            return latest
        shelf.take_down(latest, at=draft.published_at)
    dataset = draft if latest is None else replace(draft, version=latest.version + 1)
    shelf.add(dataset)
    shelf.record(
        Event(
            "dataset.published",
            actor,
            f"dataset/{dataset.name}",
            request_id=request_id,
            details={
                "version": dataset.version,
                "content_hash": dataset.content_hash,
                "disclosure": dataset.disclosure.value,
                "mock_hash": dataset.mock_hash,
            },
        )
    )
    return dataset


def withdraw(shelf: Shelf, name: str, *, actor: str, request_id: str, at: datetime) -> Dataset:
    """The version that was published until now. Raises NotFound."""
    latest = shelf.newest(name)
    if latest is None or latest.withdrawn_at is not None:
        raise NotFound(f"No data set named {name!r} is published here. See: trefoil dataset list")
    shelf.take_down(latest, at=at)
    shelf.record(
        Event(
            "dataset.withdrawn",
            actor,
            f"dataset/{name}",
            request_id=request_id,
            details={"version": latest.version, "content_hash": latest.content_hash},
        )
    )
    return latest


def _meaning(dataset: Dataset) -> tuple[object, ...]:
    """All that an owner chose or the files say. When, under which number and from which seed is not part."""
    return (
        dataset.description,
        dataset.tags,
        dataset.path,
        dataset.licence,
        dataset.disclosure,
        dataset.content_hash,
        dataset.schema,
        _unseeded(dataset.mock_recipe),
    )


def _unseeded(recipe: bytes) -> MockRecipe | None:
    """The recipe without its seed; None where a data set of the first release has none."""
    return MockRecipe.from_json(recipe).model_copy(update={"seed": 0}) if recipe else None


def _check_text(what: str, text: str, *, limit: int) -> None:
    """What the catalogue takes, too: printable text, in several lines if need be."""
    if len(text) > limit or not text.replace("\n", " ").isprintable():
        raise InvalidInput(f"A {what} is printable text of at most {limit} characters.")
