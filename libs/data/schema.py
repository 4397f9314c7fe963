"""The form of a data set's images, in words and numbers that identify nobody: what a catalogue shows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from libs.core.errors import InvalidInput
from libs.data.dataset import SourceKind, readable_disk, source_of
from libs.data.document import Record
from libs.data.images import MAX_PIXELS
from libs.data.imageset import CLASS_NAMES

MODALITY = "chest X-ray"
"""What every image is of: nothing else is read."""

_STEP = 64


class Sides(Record):
    """Pixels that every image has along one direction: between `low` and `high`, both included."""

    low: int = Field(ge=1, le=MAX_PIXELS)
    high: int = Field(ge=1, le=MAX_PIXELS)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("the smaller number comes first")
        return self

    @classmethod
    def around(cls, values: Iterable[int]) -> Self:
        """The one value, or a range rounded outwards: the largest image's exact size would point at it."""
        found = set(values)
        low, high = min(found), max(found)
        if low == high:
            return cls(low=low, high=high)
        return cls(low=max(1, low - low % _STEP), high=-(-high // _STEP) * _STEP)


class DatasetSchema(Record):
    """What a data set's files hold, whoever is on them.

    `channels` and `bits` are the most that any file has of them; all are read as 8-bit gray squares.
    How many images there are is not a part: that is `disclosure.DisclosedCounts`.
    """

    describes: ClassVar[str] = "data set's schema"

    version: Literal[1] = 1
    source: SourceKind
    height: Sides
    width: Sides
    channels: int = Field(ge=1, le=4)
    bits: int = Field(ge=1, le=32)
    classes: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        min_length=2, max_length=1000
    )
    modality: str = Field(min_length=1, max_length=64)


def describe(path: Path) -> DatasetSchema:
    """The schema of the files at `path`, from their headers. Raises InvalidInput as `load_dataset` does."""
    with readable_disk():
        source = source_of(path)
        forms = source.measure(path)
    if not forms:
        raise InvalidInput("There are no images here. Check the path, and that images lie in class folders.")
    return DatasetSchema(
        source=source.kind,
        height=Sides.around(form.height for form in forms),
        width=Sides.around(form.width for form in forms),
        channels=max(form.channels for form in forms),
        bits=max(form.bits for form in forms),
        classes=CLASS_NAMES,
        modality=MODALITY,
    )
