"""Data sets in words for people, and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from libs.core.errors import InvalidInput
from libs.data.disclosure import CountDisclosure, disclosed_again

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    from libs.data.schema import Sides
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

_DISCLOSURES = {1: CountDisclosure.EXACT, 2: CountDisclosure.ROUNDED, 3: CountDisclosure.WITHHELD}
"""By their numbers, the same in both services' messages. 0 comes from nodes of the first release."""


def staff_view(dataset: hospital_pb2.Dataset) -> dict[str, Any]:
    """A version as its own hospital sees it, for machines."""
    return {
        "name": dataset.name,
        "version": dataset.version,
        "description": dataset.description,
        "tags": list(dataset.tags),
        "licence": dataset.licence,
        "path": dataset.path,
        "images": dataset.images,
        "patients": dataset.patients,
        "images_per_class": dict(dataset.images_per_class),
        "counts": disclosure_word(dataset.disclosure),
        "disclosed_images": dataset.disclosed_images or None,
        "disclosed_counts": ranges(dataset.disclosure, dataset.disclosed_counts),
        "content_hash": dataset.content_hash,
        "schema": _parsed(dataset.schema),
        "mock_hash": dataset.mock_hash,
        "published_at": dataset.published_at.ToJsonString(),
        "withdrawn_at": _moment(dataset.withdrawn_at) if dataset.HasField("withdrawn_at") else None,
    }


def inspection_view(found: hospital_pb2.InspectDatasetResponse) -> dict[str, Any]:
    """What files hold before they are published, for machines."""
    return {
        "images": found.images,
        "patients": found.patients,
        "images_per_class": dict(found.images_per_class),
        "content_hash": found.content_hash,
        "schema": _parsed(found.schema),
        "identification": identification_view(found.identification),
    }


def catalogue_view(dataset: coordinator_pb2.Dataset) -> dict[str, Any]:
    """A data set as the catalogue shows it to everybody, for machines. `images` is None where withheld."""
    return {
        "dataset_id": dataset.dataset_id,
        "name": dataset.name,
        "version": dataset.version,
        "description": dataset.description,
        "tags": list(dataset.tags),
        "licence": dataset.licence,
        "modality": dataset.modality,
        "images": dataset.images or None,
        "counts": disclosure_word(dataset.disclosure),
        "disclosed_counts": ranges(dataset.disclosure, dataset.disclosed_counts),
        "content_hash": dataset.content_hash,
        "schema": _parsed(dataset.schema),
        "mock_recipe": _parsed(dataset.mock_recipe),
        "mock_hash": dataset.mock_hash,
        "hospital": dataset.hospital_name,
        "hospital_identity": dataset.hospital_identity,
        "online": dataset.online,
        "last_seen": _moment(dataset.last_seen) if dataset.HasField("last_seen") else None,
        "published_at": _moment(dataset.published_at) if dataset.HasField("published_at") else None,
    }


def disclosure_word(value: int) -> str:
    """exact, rounded or withheld; empty where nobody said."""
    return _DISCLOSURES[value].value if value in _DISCLOSURES else ""


def images_in_words(images: int, disclosure: int) -> str:
    """ "5232", "about 5230" or "withheld"."""
    if disclosure == 0:
        return str(images)
    if images == 0 or _DISCLOSURES.get(disclosure) is CountDisclosure.WITHHELD:
        return CountDisclosure.WITHHELD.value
    return str(images) if _DISCLOSURES.get(disclosure) is CountDisclosure.EXACT else f"about {images}"


def counts_in_words(disclosure: int, lows: Mapping[str, int]) -> str:
    """Images by class as far as they are told: "10 to 19 NORMAL, <10 PNEUMONIA"."""
    policy = _DISCLOSURES.get(disclosure)
    if policy is None or not lows:
        return CountDisclosure.WITHHELD.value
    return ", ".join(f"{count} {name}" for name, count in sorted(disclosed_again(policy, lows).items()))


def ranges(disclosure: int, lows: Mapping[str, int]) -> dict[str, list[int]]:
    """Class -> [fewest, most] images, both included; empty where withheld."""
    policy = _DISCLOSURES.get(disclosure)
    if policy is None:
        return {}
    return {name: [count.low, count.high] for name, count in disclosed_again(policy, lows).items()}


def schema_in_words(text: bytes) -> str:
    """What the files hold: form, size, depth, classes."""
    from libs.data.dataset import SOURCES
    from libs.data.schema import DatasetSchema

    if not text:
        return "not told"
    try:
        schema = DatasetSchema.from_json(text)
    except InvalidInput:
        return "in a form that this Trefoil does not know; update it to read it"
    source = next(source.describes for source in SOURCES if source.kind is schema.source)
    channels = "gray" if schema.channels == 1 else f"up to {schema.channels} channels"
    return (
        f"{schema.modality}, {source}; {_side(schema.width)} pixels wide, {_side(schema.height)} high, "
        f"{channels}, up to {schema.bits} bits; classes {', '.join(schema.classes)}"
    )


def identification_view(text: bytes) -> Any:
    """The report on identifying elements, for machines; None without DICOM files."""
    return _parsed(text)


def identification_in_words(text: bytes) -> str:
    """Which elements that identify somebody are in how many files. No value is known here."""
    from libs.data.identification import IdentificationReport

    if not text:
        return "No DICOM files, so no headers that could identify somebody."
    try:
        report = IdentificationReport.from_json(text)
    except InvalidInput:
        return "A report on identifying elements in a form that this Trefoil does not know; update it."
    uids = [attribute for attribute in report.attributes if attribute.action == "U"]
    others = [attribute for attribute in report.attributes if attribute.action != "U"]
    named = ", ".join(f"{attribute.name} {attribute.files}" for attribute in others) or "none"
    return (
        f"Identifying elements (DICOM PS3.15 E.1-1) are in {report.files_with_attributes} of {report.files} "
        "DICOM files. They stay here, and no value was read out.\n"
        f"  element and files: {named}\n"
        f"  {len(uids)} kinds of UID; private elements in {report.files_with_private_elements} file(s)\n"
        f"  burned-in annotation: {report.burned_in} say yes, {report.burned_in_untold} do not say; "
        f"{report.said_removed} say that the patient's identity was removed"
    )


def _side(side: Sides) -> str:
    return str(side.low) if side.low == side.high else f"{side.low} to {side.high}"


def _parsed(text: bytes) -> Any:
    """The JSON as a value; None where there is none, or where it is not JSON."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _moment(moment: Timestamp) -> datetime:
    return moment.ToDatetime(tzinfo=UTC)
