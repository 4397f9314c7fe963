"""The lines of an exported trail, parsed as far as they can be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from libs.core.errors import InvalidInput
from libs.runtime.audit.checkpoint import Checkpoint
from libs.runtime.audit.entry import entry_hash

_HASH = re.compile(r"[0-9a-f]{64}")
_TEXTS = ("at", "action", "actor", "object", "outcome", "approval", "request_id")
_FIELDS = frozenset({"kind", "trail", "sequence", "details", "previous_hash", "hash", *_TEXTS})


@dataclass(frozen=True)
class EntryLine:
    """An entry. `whole` if its hash is the hash of what the line says."""

    number: int
    trail: str
    sequence: int
    previous_hash: str
    hash: str
    whole: bool


@dataclass(frozen=True)
class CheckpointLine:
    """A checkpoint, its signature not yet checked."""

    number: int
    checkpoint: Checkpoint

    @property
    def trail(self) -> str:
        """Whose trail it speaks of."""
        return self.checkpoint.trail


@dataclass(frozen=True)
class UnreadableLine:
    """Neither an entry nor a checkpoint."""

    number: int
    why: str
    trail: str = ""


Line: TypeAlias = EntryLine | CheckpointLine | UnreadableLine


def parse_lines(lines: Iterable[str]) -> list[Line]:
    """Every line with its number from 1; empty ones are left out."""
    return [_parse(text, number) for number, text in enumerate(lines, start=1) if text.strip()]


def read_line(text: str) -> dict[str, Any]:
    """The JSON object of a line. InvalidInput for anything else, and for a field that stands there twice."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("it is not one JSON object with every field once") from error
    if not isinstance(value, dict):
        raise InvalidInput("it is not a JSON object")
    return value


def _parse(text: str, number: int) -> Line:
    try:
        value = read_line(text)
        if value.get("kind") == "checkpoint":
            return CheckpointLine(number, Checkpoint.from_json(value))
        return _entry(value, number)
    except InvalidInput as error:
        return UnreadableLine(number, str(error).rstrip("."))
    except (ValueError, RecursionError):  # a number such as 1e999 parses, and has no JSON text
        return UnreadableLine(number, "it holds a value that no line has")


def _entry(value: dict[str, Any], number: int) -> EntryLine:
    texts = (*_TEXTS, "trail", "previous_hash", "hash")
    if value.get("kind") != "entry" or value.keys() != _FIELDS:
        raise InvalidInput("it has not the fields of an entry")
    if type(value["sequence"]) is not int or not all(isinstance(value[name], str) for name in texts):
        raise InvalidInput("it has fields of the wrong type")
    if not _HASH.fullmatch(value["hash"]) or not _HASH.fullmatch(value["previous_hash"]):
        raise InvalidInput("its hashes are not 64 hexadecimal digits")
    return EntryLine(
        number=number,
        trail=value["trail"],
        sequence=value["sequence"],
        previous_hash=value["previous_hash"],
        hash=value["hash"],
        whole=entry_hash(value) == value["hash"],
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a field stands there twice")
    return value


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
