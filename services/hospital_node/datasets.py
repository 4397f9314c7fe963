"""Publishing and withdrawing data sets: what the owner does, and what the catalogue hears of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from libs.core.clock import Clock
from libs.core.errors import AlreadyExists, InvalidInput, NotFound
from libs.runtime.logging import get_logger
from services.hospital_node.domain import Dataset
from services.hospital_node.ports import Announcer, Store, Worker

MODALITY = "chest X-ray"
MAX_TAGS = 32
MAX_DESCRIPTION_CHARACTERS = 2000

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_TAG = re.compile(r"[\w][\w .:+-]{0,63}")

log = get_logger(__name__)


class Publisher:
    """Checks files in a worker of its own, so that publishing never waits for a training round."""

    def __init__(
        self, *, store: Store, announcer: Announcer, worker: Worker, data_roots: Sequence[Path], clock: Clock
    ) -> None:
        self._store, self._announcer, self._worker, self._clock = store, announcer, worker, clock
        self._data_roots = tuple(data_roots)

    async def publish(self, *, name: str, description: str, tags: Sequence[str], path: str) -> Dataset:
        """The data set, stored and announced; or an error in words for its owner, and nothing stored.

        The same request again, with the same files, gives the same data set. Raises InvalidInput, TooLarge,
        PermissionDenied (outside the data roots), AlreadyExists (the name means something else).
        """
        _check_words(name=name, description=description, tags=tags)
        try:
            found = await self._worker.inspect(path=Path(path), data_roots=self._data_roots)
        finally:
            await self._worker.stop()
        dataset = Dataset(
            name=name,
            description=description,
            tags=tuple(dict.fromkeys(tags)),
            path=path,
            images=found.images,
            patients=found.patients,
            images_per_class=found.images_per_class,
            content_hash=found.content_hash,
            published_at=self._clock.now(),
        )
        dataset = await self._add(dataset)
        self._announcer.dataset_published(dataset)
        log.info("dataset_published", dataset=name, image_count=dataset.images)
        return dataset

    async def withdraw(self, name: str) -> None:
        """Take it out of the catalogue; no order that needs it is obeyed from now on. Raises NotFound."""
        await self._store.remove_dataset(name)
        self._announcer.dataset_withdrawn(name)
        log.info("dataset_withdrawn", dataset=name)

    async def _add(self, dataset: Dataset) -> Dataset:
        try:
            await self._store.add_dataset(dataset)
        except AlreadyExists:
            try:
                present = await self._store.dataset(dataset.name)
            except NotFound:  # withdrawn in between
                present = None
            if present is None or _meaning(present) != _meaning(dataset):
                raise
            return present
        return dataset


def _meaning(dataset: Dataset) -> tuple[object, ...]:
    return (dataset.description, dataset.tags, dataset.path, dataset.content_hash)


def _check_words(*, name: str, description: str, tags: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "A data set's name has 1 to 63 lower-case letters, digits, dots, hyphens and underscores, and "
            "begins with a letter or digit."
        )
    if len(description) > MAX_DESCRIPTION_CHARACTERS:
        raise InvalidInput(f"A description has at most {MAX_DESCRIPTION_CHARACTERS} characters.")
    if len(tags) > MAX_TAGS or not all(_TAG.fullmatch(tag) for tag in tags):
        raise InvalidInput(
            f"There are at most {MAX_TAGS} tags, each of 1 to 64 letters, digits and . : + - _."
        )
