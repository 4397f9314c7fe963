"""Canonical JSON of frozen dataclasses, and a reader that believes nothing.

One value has one encoding: keys sorted, no spaces, ASCII, no floats, fractions as "n/d" in lowest
terms. The reader checks types and exact keys; `Plan.from_json` also compares a re-encoding byte
for byte, which closes what type checks forget (repeated keys, spaces, 1e3, "2/4").
"""

from __future__ import annotations

import enum
import json
import re
import types
import typing
from dataclasses import fields
from fractions import Fraction
from typing import Any, TypeVar

from libs.core.errors import InvalidInput

T = TypeVar("T")

MAX_LIST = 8192
MAX_INTEGER = 2**64
NAME = re.compile(r"[A-Za-z0-9_.]{1,160}", re.ASCII)
_FRACTION = re.compile(r"([1-9][0-9]{0,39})/([1-9][0-9]{0,39})", re.ASCII)


def canonical(document: object) -> bytes:
    """The one encoding of plain lists, dictionaries, strings and integers."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def parse(data: bytes, *, max_bytes: int) -> Any:
    """JSON without floats. Raises InvalidInput when it is too long or not JSON."""
    if len(data) > max_bytes:
        raise malformed(f"it is longer than {max_bytes} bytes")
    try:
        return json.loads(data.decode("ascii"), parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:
        raise malformed("it is not JSON of the expected kind") from error


def malformed(rule: str) -> InvalidInput:
    """The error for a plan that cannot be read."""
    return InvalidInput(f"The plan could not be read: {rule}. Compile the model again and send it unchanged.")


def dump(value: object) -> Any:
    """Dataclasses, enums, fractions and tuples as plain JSON values."""
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [dump(item) for item in value]
    if value is None or isinstance(value, (int, str)):
        return value
    return {field.name: dump(getattr(value, field.name)) for field in fields(value)}  # type: ignore[arg-type]


def load(cls: type[T], document: object) -> T:
    """A dataclass from exactly its keys. Raises InvalidInput naming the key."""
    record = load_record(document, keys=set(_hints(cls)), what=cls.__name__)
    return cls(**{name: _load_value(hint, record[name], name) for name, hint in _hints(cls).items()})


def load_record(document: object, *, keys: set[str], what: str) -> dict[str, Any]:
    """A dictionary with exactly these keys."""
    if not isinstance(document, dict) or set(document) != keys:
        raise malformed(f"a {what} does not have exactly the keys {', '.join(sorted(keys))}")
    return document


def load_list(document: object, *, what: str) -> list[Any]:
    """A list of at most MAX_LIST items."""
    if not isinstance(document, list) or len(document) > MAX_LIST:
        raise malformed(f"{what} is not a list of at most {MAX_LIST} items")
    return document


def _no_float(text: str) -> typing.NoReturn:
    raise ValueError("floats are not part of a plan")


def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _load_value(hint: Any, value: object, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _load_value(arguments[0], value, key)
    if origin is tuple:
        items = load_list(value, what=key)
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(items)
        if len(items) != len(arguments):
            raise malformed(f"{key} does not have {len(arguments)} items")
        return tuple(_load_value(inner, item, key) for inner, item in zip(arguments, items, strict=True))
    return _load_scalar(hint, value, key)


def _load_scalar(hint: Any, value: object, key: str) -> Any:
    if hint is int and type(value) is int and abs(value) < MAX_INTEGER:
        return value
    if hint is str and isinstance(value, str) and NAME.fullmatch(value):
        return value
    if hint is Fraction and isinstance(value, str) and (match := _FRACTION.fullmatch(value)):
        return Fraction(int(match[1]), int(match[2]))
    # A list of values, not a set: `value` may be anything JSON has, also unhashable.
    if isinstance(hint, type) and issubclass(hint, enum.Enum) and value in [one.value for one in hint]:
        return hint(value)
    raise malformed(f"{key} is not a valid {getattr(hint, '__name__', 'value')}")
