"""labels.csv: what a data set's owner says of its files, one line each."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libs.core.errors import InvalidInput, TooLarge

LABELS_FILE = "labels.csv"
"""Optional, in the top folder. Its column `file` is each file's path below that folder, with slashes."""

_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Labels:
    """The lines of a LABELS_FILE. They name patients, so `repr` shows columns only."""

    columns: tuple[str, ...]
    lines: tuple[Mapping[str, str | None], ...] = field(repr=False)

    def column(self, name: str) -> dict[str, str]:
        """File -> its entry in this column. Raises InvalidInput for a missing column or an empty entry."""
        if not {"file", name} <= set(self.columns):
            raise InvalidInput(f"{LABELS_FILE} needs the columns file and {name}.")
        entries = {line["file"]: line[name] for line in self.lines}
        if not all(entries.values()):
            raise InvalidInput(f"{LABELS_FILE} has lines without a {name}. Complete them.")
        return {file: entry for file, entry in entries.items() if file and entry}


def read_labels(root: Path) -> Labels | None:
    """The LABELS_FILE in `root`, or None without one. Raises InvalidInput (TooLarge) when it is not CSV."""
    path = root / LABELS_FILE
    return read_table(path) if path.is_file() else None


def read_table(path: Path) -> Labels:
    """A CSV file of labels, whatever its name. Raises InvalidInput (TooLarge) when it is not one."""
    if path.stat().st_size > _MAX_BYTES:
        raise TooLarge(f"A list of labels is larger than {_MAX_BYTES // 2**20} MiB.")
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            return Labels(columns=tuple(rows.fieldnames or ()), lines=tuple(rows))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(
            f"A list of labels ({LABELS_FILE}) is not a CSV file in UTF-8. Write it again or remove it."
        ) from error


def entry_of(name: str, path: Path, entries: Mapping[str, str]) -> str:
    """The entry of the file `name` at `path`. Raises InvalidInput when the LABELS_FILE leaves it out."""
    if name not in entries:
        error = InvalidInput(
            f"{LABELS_FILE} does not list every image. Add the missing lines, or remove the file."
        )
        error.add_note(f"file: {path}")
        raise error
    return entries[name]
