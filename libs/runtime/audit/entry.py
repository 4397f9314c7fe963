"""One entry of an audit trail, and how it is chained to the one before. Nothing here does any I/O.

An entry's hash covers the hash of the entry before it and the name of the trail, so an entry that is altered,
left out, moved or taken from another service's trail no longer fits to its neighbours.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from libs.core.errors import Bug, InvalidInput

GENESIS = "0" * 64
"""What stands for the hash of the entry before the first."""

MAX_TEXT = 255
MAX_DETAILS = 12
MAX_DETAIL_TEXT = 200

_ACTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_DETAIL = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FORMAT = "trefoil-audit-1"
_INT64 = 2**63

Detail = str | int | bool


class Outcome(enum.StrEnum):
    """How it ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Event:
    """What a service says happened: who, what, to what, under which approval. Never data.

    `action` is dotted, in lower case, with its verb in the past tense: "dataset.published". `actor` is an
    identity, with the subject of the token if there is one ("spiffe://trefoil.local/client/ada (ada)"), or
    "system".
    `details` are up to 12 short scalars, hashes and counts, say; a number with a fraction goes in as text.
    Names that callers chose may be long or strange: they are kept readable (`readable`), never refused.
    Raises Bug for an action or a detail that cannot be, InvalidInput for a detail that is too long.
    """

    action: str
    actor: str
    object: str = ""
    outcome: Outcome = Outcome.DONE
    approval: str = ""
    request_id: str = ""
    details: Mapping[str, Detail] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ACTION.fullmatch(self.action) or len(self.action) > MAX_TEXT:
            raise Bug(f"{self.action!r} is no audit action; it reads like dataset.published")
        if not self.actor:
            raise Bug("an audit event needs an actor; what a service does by itself has the actor system")
        for name in ("actor", "object", "approval", "request_id"):
            object.__setattr__(self, name, readable(getattr(self, name)))
        object.__setattr__(self, "details", MappingProxyType(_checked(self.details)))


@dataclass(frozen=True)
class Entry:
    """An event at its place in a trail. `sequence` counts from 1 without gaps; `at` is in UTC.

    `hash` is the SHA-256 of the canonical JSON of everything else, the trail's name included (`entry_hash`).
    """

    sequence: int
    at: datetime
    event: Event
    previous_hash: str
    hash: str

    def to_json(self, *, trail: str) -> dict[str, Any]:
        """The entry as one line of an export."""
        return {**_body(self.sequence, self.at, self.event, self.previous_hash, trail), "hash": self.hash}


def chain(previous: Entry | None, event: Event, at: datetime, *, trail: str) -> Entry:
    """The entry of `event` after `previous`, or the first. `trail` is the identity URI of the service."""
    if previous is None:
        return link(0, GENESIS, event, at, trail=trail)
    return link(previous.sequence, previous.hash, event, at, trail=trail)


def link(sequence: int, head_hash: str, event: Event, at: datetime, *, trail: str) -> Entry:
    """The entry of `event` after the one with this sequence number and hash; (0, GENESIS) before the first.

    ValueError for a moment without a zone.
    """
    if at.tzinfo is None:
        raise ValueError("a moment without a zone cannot be chained")
    body = _body(sequence + 1, at, event, head_hash, trail)
    return Entry(sequence + 1, at.astimezone(UTC), event, head_hash, entry_hash(body))


def entry_hash(line: Mapping[str, Any]) -> str:
    """The hash that a line of an export must have: of all its fields but `hash`. 64 hexadecimal digits."""
    body = {key: value for key, value in line.items() if key != "hash"}
    return hashlib.sha256(canonical({"format": _FORMAT, **body})).hexdigest()


def canonical(value: Mapping[str, Any]) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def moment_text(at: datetime) -> str:
    """UTC with microseconds, always of the same length: 2026-11-24T22:00:00.000000Z."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def readable(text: str) -> str:
    """`text` without control characters and at most 255 characters long.

    A longer one ends in a part of its hash, so that two long names stay two names.
    """
    clean = "".join(char if char.isprintable() else "?" for char in text)
    if len(clean) <= MAX_TEXT:
        return clean
    mark = f"…{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]}"
    return clean[: MAX_TEXT - len(mark)] + mark


def listed(names: Sequence[str]) -> str:
    """Names as one detail, separated by spaces; as many as fit, and how many there are."""
    text = " ".join(names)
    if len(text) <= MAX_DETAIL_TEXT:
        return text
    end = f" … ({len(names)} in all)"
    return text[: MAX_DETAIL_TEXT - len(end)].rsplit(" ", 1)[0] + end


def _body(sequence: int, at: datetime, event: Event, previous_hash: str, trail: str) -> dict[str, Any]:
    return {
        "kind": "entry",
        "trail": trail,
        "sequence": sequence,
        "at": moment_text(at),
        "action": event.action,
        "actor": event.actor,
        "object": event.object,
        "outcome": event.outcome.value,
        "approval": event.approval,
        "request_id": event.request_id,
        "details": dict(event.details),
        "previous_hash": previous_hash,
    }


def _checked(details: Mapping[str, Detail]) -> dict[str, Detail]:
    if len(details) > MAX_DETAILS:
        raise Bug(f"an audit event has at most {MAX_DETAILS} details")
    checked: dict[str, Detail] = {}
    for name, value in details.items():
        if not _DETAIL.fullmatch(name):
            raise Bug(f"{name!r} cannot name a detail of an audit event")
        if not isinstance(value, str | int) or not _fits(value):
            raise Bug(f"the detail {name} is no short text, integer or truth value")
        if isinstance(value, str) and len(value) > MAX_DETAIL_TEXT:
            raise InvalidInput(
                f"The detail {name} is longer than {MAX_DETAIL_TEXT} characters, "
                "too long for the audit trail. Shorten it."
            )
        checked[name] = readable(value) if isinstance(value, str) else value
    return checked


def _fits(value: str | int) -> bool:
    return isinstance(value, str) or -_INT64 <= value < _INT64
