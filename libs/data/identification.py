"""What in a data set's DICOM headers identifies somebody: how many files have which element, and no value.

For the owner's own screen. Nothing of a header leaves the reader in any case; the report says what an owner
keeps at the hospital, and what other software that reads the same files would see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from libs.core.errors import InvalidInput
from libs.data.confidentiality_profile import action_of
from libs.data.dataset import SourceKind, readable_disk, source_of
from libs.data.dicom import dicom_files
from libs.data.dicom_file import read_elements, untrusted
from libs.data.document import Record
from libs.data.images import naming

_MAX_DEPTH = 16
"""Sequences in sequences; a radiograph has three or four."""


class Attribute(Record):
    """One row of PS3.15 table E.1-1 that files have with a value. `action` is what the profile asks for."""

    name: str = Field(min_length=1, max_length=80)
    action: str = Field(min_length=1, max_length=8)
    files: int = Field(ge=1)


class IdentificationReport(Record):
    """`files` are the DICOM files. Presence only: a name may be made up, a date shifted.

    `burned_in` are files that say so of themselves (BurnedInAnnotation YES), `burned_in_untold` those that
    say neither YES nor NO: text in pixels is not looked for. `said_removed` have PatientIdentityRemoved YES.
    """

    describes: ClassVar[str] = "report of identifying elements"
    max_bytes: ClassVar[int] = 256 * 1024

    version: Literal[1] = 1
    files: int = Field(ge=0)
    files_with_attributes: int = Field(ge=0)
    files_with_private_elements: int = Field(ge=0)
    burned_in: int = Field(ge=0)
    burned_in_untold: int = Field(ge=0)
    said_removed: int = Field(ge=0)
    attributes: tuple[Attribute, ...] = ()


@dataclass(frozen=True)
class _Header:
    """What one file has: keywords of E.1-1 with a value, and what it says of itself."""

    attributes: frozenset[tuple[str, str]]
    private: bool
    burned_in: str
    removed: bool


def report_identification(path: Path) -> IdentificationReport | None:
    """The report on the DICOM files at `path`; None where a data set has none.

    Raises InvalidInput as `load_dataset` does, for a header that cannot be read to its end too.
    """
    with readable_disk():
        if source_of(path).kind is not SourceKind.DICOM:
            return None
        return _report([_header(file) for file in dicom_files(path)])


def _report(headers: list[_Header]) -> IdentificationReport:
    counts = Counter(attribute for header in headers for attribute in header.attributes)
    return IdentificationReport(
        files=len(headers),
        files_with_attributes=sum(bool(header.attributes) or header.private for header in headers),
        files_with_private_elements=sum(header.private for header in headers),
        burned_in=sum(header.burned_in == "YES" for header in headers),
        burned_in_untold=sum(header.burned_in not in {"YES", "NO"} for header in headers),
        said_removed=sum(header.removed for header in headers),
        attributes=tuple(
            Attribute(name=name, action=action, files=count)
            for (name, action), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ),
    )


def _header(path: Path) -> _Header:
    with naming(path), untrusted():
        elements = read_elements(path, None)
        present = set(_present(elements, depth=0))
        return _Header(
            attributes=frozenset((_name(tag), action) for tag, action in present if not _private(tag)),
            private=any(_private(tag) for tag, _ in present),
            burned_in=str(elements.get("BurnedInAnnotation") or "").strip().upper(),
            removed=str(elements.get("PatientIdentityRemoved") or "").strip().upper() == "YES",
        )


def _present(elements: Dataset, *, depth: int) -> Iterator[tuple[int, str]]:
    """(tag, action) of every element that the profile names and that has a value, in sequences too."""
    if depth > _MAX_DEPTH:
        raise InvalidInput("A DICOM file's header has sequences in sequences without end. Remove it.")
    for tag in elements.keys():  # noqa: SIM118 - a Dataset iterates over elements, which would parse them all
        action = action_of(int(tag))
        if action is not None and _has_value(elements, tag):
            yield int(tag), action
        for item in _items(elements, tag):
            yield from _present(item, depth=depth + 1)


def _has_value(elements: Dataset, tag: BaseTag) -> bool:
    element = elements.get_item(tag)
    value = element.value if element is not None else None
    if isinstance(value, bytes):
        return bool(value.strip(b"\0 "))
    return value is not None and value != "" and (not hasattr(value, "__len__") or len(value) > 0)


def _items(elements: Dataset, tag: BaseTag) -> Iterable[Dataset]:
    """Items of a sequence; nothing for another element, which is not parsed: its text may be broken."""
    element = elements.get_item(tag)
    if isinstance(element, RawDataElement) and not _is_sequence(element):
        return ()
    whole = elements[tag]
    return whole.value if whole.VR == "SQ" and whole.value is not None else ()


def _is_sequence(element: RawDataElement) -> bool:
    """Files that leave out what their elements are leave it to the dictionary."""
    if element.VR in {None, "UN"} and dictionary_has_tag(element.tag):
        return dictionary_VR(element.tag) == "SQ"
    return element.VR == "SQ"


def _private(tag: int) -> bool:
    return bool(tag >> 16 & 1)


def _name(tag: int) -> str:
    """The standard's keyword; the tag itself where this pydicom knows none."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
