"""What a hospital says about a dataset, checked field by field before it is stored and shown to others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from libs.core.errors import InvalidInput
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc.identity import Identity
from services.coordinator.gateway_ports import Dataset
from services.coordinator.wire_values import moment_of

MAX_NAME = 128
MAX_DESCRIPTION = 4000
MAX_LICENCE = 1000
MAX_TAGS = 32
MAX_TAG = 64
MAX_CLASSES = 256
MAX_IMAGES = 10**12
MAX_JSON_BYTES = 16 * 1024

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DISCLOSURES: Mapping[int, str] = {
    coordinator_pb2.COUNT_DISCLOSURE_UNSPECIFIED: "",
    coordinator_pb2.COUNT_DISCLOSURE_EXACT: "exact",
    coordinator_pb2.COUNT_DISCLOSURE_ROUNDED: "rounded",
    coordinator_pb2.COUNT_DISCLOSURE_WITHHELD: "withheld",
}
WITHHELD = _DISCLOSURES[coordinator_pb2.COUNT_DISCLOSURE_WITHHELD]


def described(hospital: Identity, message: coordinator_pb2.Dataset, *, now: datetime) -> Dataset:
    """The description as it is stored. What the coordinator knows better than the hospital is not read from
    the message. InvalidInput names a wrong field.
    """
    name = checked_text("dataset's name", message.name, limit=MAX_NAME)
    if "/" in name:
        raise InvalidInput("A dataset's name has no slash. Publish it under another name.")
    disclosure = _DISCLOSURES.get(message.disclosure)
    if disclosure is None:
        raise InvalidInput("The dataset's disclosure is unknown. Update the coordinator.")
    has_moment = message.HasField("published_at")
    return Dataset(
        dataset_id=dataset_id(hospital, name),
        hospital=hospital.uri,
        name=name,
        description=checked_text("description", message.description, limit=MAX_DESCRIPTION, empty=True),
        tags=normal_tags(message.tags),
        modality=checked_text("modality", message.modality, limit=MAX_TAG, empty=True),
        images=_images(message.images, withheld=disclosure == WITHHELD),
        published_at=moment_of(message.published_at) if has_moment else now,
        version=message.version,
        licence=checked_text("licence", message.licence, limit=MAX_LICENCE, empty=True),
        content_hash=_hash("content hash", message.content_hash),
        schema=_canonical("schema", message.schema),
        disclosed_counts=_counts(message.disclosed_counts, withheld=disclosure == WITHHELD),
        disclosure=disclosure,
        mock_recipe=_canonical("mock's recipe", message.mock_recipe),
        mock_hash=_hash("mock's hash", message.mock_hash),
    )


def disclosure_value(disclosure: str) -> coordinator_pb2.CountDisclosure.ValueType:
    """The word as it travels."""
    return coordinator_pb2.CountDisclosure.Value(f"COUNT_DISCLOSURE_{(disclosure or 'unspecified').upper()}")


def dataset_id(hospital: Identity, name: str) -> str:
    """`<node>/<name>`: a hospital cannot publish under another's name."""
    return f"{hospital.name}/{name}"


def normal_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Trimmed, in lower case, sorted, each once: "X-Ray" finds "x-ray". InvalidInput above the limits."""
    normal = tuple(sorted({tag.strip().casefold() for tag in tags} - {""}))
    if len(normal) > MAX_TAGS or any(len(tag) > MAX_TAG or not tag.isprintable() for tag in normal):
        raise InvalidInput(
            f"There are at most {MAX_TAGS} printable tags of at most {MAX_TAG} characters each."
        )
    return normal


def checked_text(what: str, text: str, *, limit: int, empty: bool = False) -> str:
    """The trimmed text. InvalidInput if it is too long, not printable, or empty without `empty`."""
    trimmed = text.strip()
    if len(trimmed) > limit or not trimmed.replace("\n", " ").isprintable() or not (trimmed or empty):
        raise InvalidInput(f"The {what} is printable text of {0 if empty else 1} to {limit} characters.")
    return trimmed


def checked_size(what: str, images: int) -> int:
    """The number of images. InvalidInput above what any database here can store and compare."""
    if images > MAX_IMAGES:
        raise InvalidInput(f"The {what} is at most {MAX_IMAGES}.")
    return images


def _images(images: int, *, withheld: bool) -> int:
    if images < 1 and not withheld:
        raise InvalidInput("A dataset has at least one image.")
    return checked_size("number of images", images)


def _counts(counts: Mapping[str, int], *, withheld: bool) -> dict[str, int]:
    if withheld and counts:
        raise InvalidInput("A dataset whose counts are withheld lists none. Publish it again without them.")
    if len(counts) > MAX_CLASSES:
        raise InvalidInput(f"A dataset discloses the counts of at most {MAX_CLASSES} classes.")
    return {
        checked_text("class's name", name, limit=MAX_TAG): checked_size("count of a class", count)
        for name, count in counts.items()
    }


def _hash(what: str, text: str) -> str:
    if text and not _HASH.fullmatch(text):
        raise InvalidInput(f"The {what} is SHA-256: 64 lower-case hexadecimal digits, or empty.")
    return text


def _canonical(what: str, text: bytes) -> bytes:
    """The bytes, if they are one JSON object in its one form: sorted keys, no spaces, ASCII; or empty."""
    if not text:
        return text
    wrong = InvalidInput(
        f"The {what} is an object in canonical JSON of at most {MAX_JSON_BYTES} bytes. Update the hospital "
        "node."
    )
    if len(text) > MAX_JSON_BYTES:
        raise wrong
    try:
        value = json.loads(text)
        again = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise wrong from error
    if not isinstance(value, dict) or again != text:
        raise wrong
    return text
