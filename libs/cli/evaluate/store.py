"""Results of steps on disk, each under the hash of everything it came from.

A step that was done before, with the same data, options and code, is not done again; one whose inputs changed
gets another hash. Older results stay beside it, so going back to an option costs nothing either.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput

_FORMAT = "trefoil-evaluation-step-1"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """What a step gave: arrays by name, among them `probabilities` (N,) of the test images, and facts.

    Facts are JSON: `threshold`, `seconds`, `cpu_s`, `bytes`, and what else a kind of row has to tell.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(repr=False)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Of pneumonia, for each test image."""
        return self.arrays["probabilities"]


@dataclass(frozen=True)
class StepKey:
    """`name` is for people; `inputs` (JSON) is everything that the result depends on."""

    name: str
    inputs: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of name and inputs, hex."""
        text = json.dumps([_FORMAT, self.name, self.inputs], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


class StepStore:
    """`<folder>/<hash>.json` with the facts, `<hash>.npz` with the arrays. Written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: StepKey) -> Outcome | None:
        """The stored result; None where there is none, or where it is damaged and has to be made again."""
        try:
            kept = json.loads(self._path(key, "json").read_text("utf-8"))
            data = self._path(key, "npz").read_bytes()
            if kept["sha256"] != _digest(data):
                return None
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return Outcome(facts=kept["facts"], arrays={name: arrays[name] for name in arrays.files})
        except (FileNotFoundError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def keep(self, key: StepKey, outcome: Outcome) -> None:
        """Store a result. The facts come last: where they are, everything is."""
        buffer = io.BytesIO()
        arrays: Any = dict(outcome.arrays)
        np.savez_compressed(buffer, **arrays)
        document = {
            "name": key.name,
            "inputs": key.inputs,
            "sha256": _digest(buffer.getvalue()),
            "facts": outcome.facts,
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(self._path(key, "npz"), buffer.getvalue())
            self._write(self._path(key, "json"), json.dumps(document, indent=1).encode())
        except OSError as error:
            raise InvalidInput(
                f"Results cannot be written to {self._folder} ({error.strerror}). Choose another --output."
            ) from error

    def why_again(self, key: StepKey) -> tuple[str, ...]:
        """Which inputs are others than in the latest result of the same name; none where it is the first."""
        same = []
        for path in self._folder.glob("*.json"):
            try:
                kept = json.loads(path.read_text("utf-8"))
                if kept["name"] == key.name:
                    same.append((path.stat().st_mtime_ns, kept["inputs"]))
            except (OSError, ValueError, KeyError):
                continue
        if not same:
            return ()
        before, now = max(same, key=lambda pair: pair[0])[1], json.loads(json.dumps(key.inputs))
        return tuple(sorted(name for name in {*before, *now} if before.get(name) != now.get(name)))

    def _path(self, key: StepKey, suffix: str) -> Path:
        return self._folder / f"{key.hash[:32]}.{suffix}"

    def _write(self, path: Path, data: bytes) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(data)
        part.replace(path)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
