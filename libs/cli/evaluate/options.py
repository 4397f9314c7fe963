"""What can be chosen about an evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from libs.core.errors import InvalidInput
from libs.fl.resampling import RESAMPLES

PHANTOM_SIZE = NPZ_SIZE = 28
FOLDER_SIZE = 64
SMALL_CNN_UP_TO = 48
"""Pixels a side up to which the small network is the default, as in the demo."""

QUICK_IMAGES, QUICK_ROUNDS, QUICK_EPSILONS, QUICK_RESAMPLES = 1500, 4, (8.0,), 500
QUICK_PRIVATE_ROUNDS = 12
"""Batches are large with privacy, so that few rounds would be hardly any steps."""


class RowKind(StrEnum):
    """The rows that can be asked for, in the table's order."""

    ALONE = "alone"
    CENTRALISED = "centralised"
    FEDERATED = "federated"
    SKEWED = "skewed"
    SECURE = "secure"
    PRIVATE = "private"
    ENCRYPTED = "encrypted"

    @classmethod
    def parse(cls, words: Iterable[str]) -> tuple[RowKind, ...]:
        """Rows by name, in the table's order; all of them for no name. Raises InvalidInput."""
        wanted = {word.strip() for word in words if word.strip()}
        if unknown := sorted(wanted - set(cls)):
            raise InvalidInput(
                f"There are no rows called {', '.join(unknown)}. Choose from {', '.join(cls)}, with commas."
            )
        return tuple(kind for kind in cls if not wanted or kind in wanted)


@dataclass(frozen=True)
class EvaluateOptions:
    """None means: chosen from the data. `quick`: fewer images, rounds and epsilons, to see that all works."""

    output: Path
    data: Path | None = None
    rows: tuple[RowKind, ...] = tuple(RowKind)
    hospitals: int = 3
    model: str | None = None
    private_model: str = "small_cnn_private"
    size: int | None = None
    rounds: int | None = None
    private_rounds: int | None = None
    skews: tuple[float, ...] = (0.5,)
    epsilons: tuple[float, ...] | None = None
    delta: float = 1e-4
    seed: int = 0
    repeats: int = 1
    workers: int | None = None
    phantoms: int = 1600
    quick: bool = False

    @property
    def image_size(self) -> int:
        """Pixels a side: 28 for made-up images and .npz files (MedMNIST's size), 64 for folders."""
        if self.size is not None:
            return self.size
        if self.data is None:
            return PHANTOM_SIZE
        return FOLDER_SIZE if self.data.is_dir() else NPZ_SIZE

    @property
    def model_name(self) -> str:
        """The architecture of rows without privacy."""
        return self.model or ("small_cnn" if self.image_size <= SMALL_CNN_UP_TO else "medium_cnn")

    @property
    def targets(self) -> tuple[float, ...]:
        """Epsilons, from the most noise to the least."""
        default = QUICK_EPSILONS if self.quick else (1.0, 2.0, 4.0, 8.0)
        return tuple(sorted(set(self.epsilons or default)))

    @property
    def seeds(self) -> tuple[int, ...]:
        """One for each repetition. The test images are the same for all."""
        return tuple(range(self.seed, self.seed + self.repeats))

    @property
    def resamples(self) -> int:
        """Of the bootstrap."""
        return QUICK_RESAMPLES if self.quick else RESAMPLES

    def rounds_of(self, *, private: bool) -> int | None:
        """Rounds if they were chosen; None leaves them to the preset."""
        chosen = self.private_rounds if private and self.private_rounds is not None else self.rounds
        quick = QUICK_PRIVATE_ROUNDS if private else QUICK_ROUNDS
        return quick if self.quick and chosen is None else chosen
