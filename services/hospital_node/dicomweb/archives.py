"""From a list of labels and an archive to a folder of files, in the node's own cache, ready to be published.

The folder is like one that an owner made: files without names of their own, and labels.csv. Its name is the
hash of what it holds, so what was fetched before is the same folder. It is read as all files are, by the
worker process, and nothing here opens an image.
"""

from __future__ import annotations

import asyncio
import csv
import errno
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from libs.core.errors import InvalidInput, StorageFull, TooLarge, Unavailable
from libs.data.dicom import label_of_entry
from libs.data.dicom_image import BODY_PARTS, MODALITIES, VIEWS
from libs.data.labels import LABELS_FILE, Labels, read_table
from libs.runtime.logging import get_logger
from services.hospital_node.dicomweb.client import DicomWebClient, Instance, is_uid
from services.hospital_node.dicomweb.settings import DicomWebSettings

KEYS = ("SOPInstanceUID", "StudyInstanceUID", "PatientID")
"""Columns by one of which a list names images."""

_LABELS = ("label", "finding")
_PATIENT = re.compile(r"[^\\*?\x00-\x1f\x7f]{1,64}")
"""No wildcard of a search, and no sign that separates values."""
_UNFINISHED = ".fetching-"

log = get_logger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a list asks for: the column that names images, and entry -> label as its owner wrote it."""

    key: str
    column: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Fetched:
    """A folder with what was asked for. `fresh`: it was not there before."""

    folder: Path
    fresh: bool

    def discard(self) -> None:
        """Leave nothing behind that nobody published."""
        if self.fresh:
            shutil.rmtree(self.folder, ignore_errors=True)


class Archives:
    """The DICOMweb servers of a node's settings, and the folder that keeps what came from them."""

    def __init__(self, servers: Mapping[str, DicomWebSettings], *, cache: Path) -> None:
        self._servers, self._cache = servers, cache

    def clean(self) -> None:
        """Remove what a stopped node left unfinished."""
        for folder in self._cache.glob(f"*/{_UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)

    async def fetch(self, server: str, *, labels: Path) -> Fetched:
        """All images of the list at `labels`. Raises TrefoilErrors in words for the owner."""
        settings = self._servers.get(server)
        if settings is None:
            known = ", ".join(sorted(self._servers)) or "none"
            raise InvalidInput(
                f"This node's settings have no DICOMweb server of that name (there: {known}). Its operator "
                "adds one as [dicomweb.NAME]."
            )
        with _disk():
            wanted = await asyncio.to_thread(read_wanted, labels)
            place = self._cache / server
            unfinished = await asyncio.to_thread(_new_folder, place)
            try:
                async with DicomWebClient(settings, name=server) as client:
                    await _fill(unfinished, client, wanted, settings=settings, server=server)
                return await asyncio.to_thread(_keep, unfinished, place)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)


def _new_folder(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place))


def _keep(unfinished: Path, place: Path) -> Fetched:
    """The folder under the hash of its content; the older one, if that is there already."""
    target = place / _content_hash(unfinished)
    if target.exists():
        return Fetched(target, fresh=False)
    unfinished.rename(target)
    return Fetched(target, fresh=True)


def read_wanted(path: Path) -> Wanted:
    """The list: a CSV file with one of KEYS and label or finding. Raises InvalidInput without an entry."""
    table = read_table(path)
    keys = [key for key in KEYS if key in table.columns]
    columns = [column for column in _LABELS if column in table.columns]
    if len(keys) != 1 or not columns:
        raise InvalidInput(
            f"A list for DICOMweb has exactly one of the columns {', '.join(KEYS)}, and a column label."
        )
    return Wanted(key=keys[0], column=columns[0], labels=_entries(table, keys[0], columns[0]))


def _entries(table: Labels, key: str, column: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    for number, line in enumerate(table.lines, start=2):
        name, label = (line.get(key) or "").strip(), (line.get(column) or "").strip()
        if not (_PATIENT.fullmatch(name) if key == "PatientID" else is_uid(name)):
            raise InvalidInput(f"Line {number} of the list has no {key} that can be asked for. Correct it.")
        label_of_entry(label)
        if entries.setdefault(name, label) != label:
            raise InvalidInput(
                f"Line {number} of the list gives another label than a line before. Correct it."
            )
    if not entries:
        raise InvalidInput("The list names no image. Write one line for each.")
    return entries


async def _fill(
    folder: Path, client: DicomWebClient, wanted: Wanted, *, settings: DicomWebSettings, server: str
) -> None:
    """The wanted images as 000001.dcm and so on, in order of their UIDs, and labels.csv."""
    found, skipped = await _find(client, wanted)
    if len(found) > settings.max_images:
        raise TooLarge(
            f"The list means {len(found)} images, and this node takes {settings.max_images} from a server. "
            "List less, or have its operator raise max_images."
        )
    total = 0
    lines = []
    for number, (instance, label) in enumerate(
        sorted(found.items(), key=lambda item: item[0].instance), start=1
    ):
        name = f"{number:06d}.dcm"
        total += await client.fetch(instance, folder / name)
        if total > settings.max_total_bytes:
            raise TooLarge(
                f"The images take more than {settings.max_total_bytes // 2**20} MiB. List less, or have the "
                "node's operator raise max_total_bytes."
            )
        lines.append((name, label))
    with (folder / LABELS_FILE).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("file", wanted.column), *lines])
    log.info("dicomweb_fetched", server=server, count=len(lines), skipped=skipped, total_bytes=total)


async def _find(client: DicomWebClient, wanted: Wanted) -> tuple[dict[Instance, str], int]:
    """Instance -> label, and how many were left out because the server says that they show something else."""
    search = {
        "SOPInstanceUID": client.find_instance,
        "StudyInstanceUID": client.find_in_study,
        "PatientID": client.find_of_patient,
    }[wanted.key]
    found: dict[Instance, str] = {}
    skipped = 0
    for number, (name, label) in enumerate(wanted.labels.items(), start=1):
        instances = await search(name)
        chosen = [
            instance for instance in instances if wanted.key == "SOPInstanceUID" or _may_be_frontal(instance)
        ]
        skipped += len(instances) - len(chosen)
        if not chosen:
            raise InvalidInput(
                f"The server has no frontal chest radiograph for entry {number} of the list (each counted "
                "once). Correct or remove it."
            )
        for instance in chosen:
            if found.setdefault(instance, label) != label:
                raise InvalidInput(f"Entry {number} of the list gives an image a second label. Correct it.")
    return found, skipped


def _may_be_frontal(instance: Instance) -> bool:
    """Nothing that the server says of it is against it: a study has lateral views and reports too."""
    return all(
        not said or said in fits
        for said, fits in (
            (instance.modality, MODALITIES),
            (instance.view, VIEWS),
            (instance.body_part, BODY_PARTS),
        )
    )


def _content_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull("This node's disk is full. Have its operator make room.") from error
        raise Unavailable(
            "This node cannot write to its dicomweb_cache. Have its operator check it."
        ) from error
