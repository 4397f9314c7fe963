"""From a path on the hospital's disk to images, through every check that stands between the two."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.core.errors import FailedPrecondition, InvalidInput, PermissionDenied
from libs.data import npz
from libs.data.dataset import readable_disk, source_of
from libs.data.identification import report_identification
from libs.data.imageset import ImageSet, require_both_classes
from libs.data.schema import describe
from services.hospital_node.ports import Inspection

INSPECTION_SIZE = 64
"""Pixels a side at which files are read before publishing: reading is the check, the size does not matter."""

_KEPT_IN_MEMORY = 2
_Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class _Files:
    """What lies below a path: the path without links, and (name, file) of every file, in order of names."""

    path: Path
    files: tuple[tuple[str, Path], ...]

    def fingerprint(self) -> _Fingerprint:
        """Changes whenever a file is written, added, removed or renamed; cheap."""
        stats = ((name, file.stat()) for name, file in self.files)
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)

    def content_hash(self) -> str:
        """SHA-256 over names and contents, hex."""
        digest = hashlib.sha256()
        for name, file in self.files:
            with file.open("rb") as stream:
                inner = hashlib.file_digest(stream, "sha256")
            digest.update(f"{len(name)}:{name}:{inner.hexdigest()}".encode())
        return digest.hexdigest()


class Datasets:
    """Loads data sets, and keeps the latest in memory from one round to the next."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int], tuple[_Fingerprint, str, ImageSet]] = OrderedDict()

    def inspect(self, path: Path, *, data_roots: Sequence[Path]) -> Inspection:
        """What there is to learn from at `path`. Texts of errors name files relative to the data root."""
        files = find_files(path, data_roots=data_roots)
        imageset = _read(files.path, size=INSPECTION_SIZE)
        report = report_identification(files.path)
        return Inspection(
            images=len(imageset),
            patients=imageset.patient_count,
            images_per_class=imageset.class_counts,
            content_hash=files.content_hash(),
            schema=describe(files.path).canonical_json().decode(),
            identification="" if report is None else report.canonical_json().decode(),
        )

    def load(self, path: Path, *, data_roots: Sequence[Path], size: int, content_hash: str) -> ImageSet:
        """The images as they were published.

        Raises FailedPrecondition, without the name of a file, if they are not.
        """
        try:
            files = find_files(path, data_roots=data_roots)
            fingerprint = files.fingerprint()
            kept = self._kept.get((files.path, size))
            if kept is not None and kept[:2] == (fingerprint, content_hash):
                return kept[2]
            unchanged = files.content_hash() == content_hash
            imageset = _read(files.path, size=size) if unchanged else None
        except (InvalidInput, PermissionDenied, OSError):
            imageset = None
        if imageset is None:
            raise FailedPrecondition(
                "The data set's files are no longer what its owner published. The owner has to withdraw it "
                "and publish it again."
            )
        self._kept[files.path, size] = (fingerprint, content_hash, imageset)
        while len(self._kept) > _KEPT_IN_MEMORY:
            self._kept.popitem(last=False)
        return imageset


def find_files(path: Path, *, data_roots: Sequence[Path]) -> _Files:
    """Everything at `path`. Raises PermissionDenied when it, or a link in it, leads out of the data roots."""
    roots = tuple(root.resolve() for root in data_roots)
    if not path.is_absolute():
        raise InvalidInput("Give the absolute path of the data on the hospital node's own disk.")
    real = path.resolve()
    if not any(real.is_relative_to(root) for root in roots):
        raise PermissionDenied(
            "This path is outside the folders that data may be published from. Move the data into one of "
            "this node's data_roots, or have its operator add a folder there."
        )
    if not real.exists():
        raise InvalidInput(
            "There is nothing at this path. Check its spelling, and that the node can read it."
        )
    files = list(_single(real, roots) if real.is_file() else _walk(real, "", roots, seen={real}))
    return _Files(path=real, files=tuple(sorted(files)))


def _single(file: Path, roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The file, and the list of its patients beside it."""
    yield file.name, file
    beside = npz.ids_file(file)
    if npz.recognises(file) and beside.is_file():
        _require_inside(beside.resolve(), roots, name=beside.name)
        yield beside.name, beside.resolve()


def _walk(folder: Path, prefix: str, roots: Sequence[Path], *, seen: set[Path]) -> Iterator[tuple[str, Path]]:
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        real = entry.resolve() if entry.is_symlink() else entry
        _require_inside(real, roots, name=name)
        if real in seen:
            raise InvalidInput(
                f"{name} is a link to a folder that is in this data set already. Remove the link."
            )
        if real.is_dir():
            seen.add(real)
            yield from _walk(real, f"{name}/", roots, seen=seen)
        elif real.is_file():
            yield name, real
        else:
            raise InvalidInput(f"{name} is neither a file nor a folder. Remove it from the data set.")


def _require_inside(real: Path, roots: Sequence[Path], *, name: str) -> None:
    if not any(real.is_relative_to(root) for root in roots):
        raise PermissionDenied(
            f"{name} is a link that leads out of the folders that data may be published from. "
            "Put the files themselves there."
        )


def _read(path: Path, *, size: int) -> ImageSet:
    """What may be learnt from at `path`: the official train part, or all where there is no such split."""
    with readable_disk():
        train = source_of(path).read(path, size=size).train
    require_both_classes(train)
    return train


def owners_text(error: InvalidInput | PermissionDenied | Exception, *, data_roots: Sequence[Path]) -> str:
    """The error's public text and, from its notes, the file it is about, relative to the data root."""
    text = str(error)
    for note in getattr(error, "__notes__", ()):
        kind, _, named = note.partition(": ")
        if kind == "file":
            text += f" (file: {_relative(Path(named), data_roots)})"
    return text


def _relative(file: Path, data_roots: Sequence[Path]) -> str:
    for root in data_roots:
        if file.is_relative_to(root.resolve()):
            return file.relative_to(root.resolve()).as_posix()
    return file.name
