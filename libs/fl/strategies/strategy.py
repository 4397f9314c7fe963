"""What a strategy decides. Everything else about a round is the same for all of them.

The parties only add: each version is the version before plus the weighted mean of the contributions. A
strategy says what a version's vectors mean to those who may read them, how a hospital trains from it, and
what it contributes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from libs.core.errors import FailedPrecondition, InvalidInput

if TYPE_CHECKING:
    from torch import nn

P = TypeVar("P")
"""A participant: the coordinator and the parties name hospitals differently."""

Floats = npt.NDArray[np.float64]
OwnState = Mapping[str, Floats]
"""What one hospital keeps for itself from round to round, by name."""


@dataclass(frozen=True)
class Layout:
    """Which coordinates of a model's weight vector are what. Masks of shape (parameters,).

    `trained`: have a gradient, unlike BatchNorm's statistics. `batch_norm`: all that BatchNorm has, weights,
    biases and statistics.
    """

    trained: npt.NDArray[np.bool_]
    batch_norm: npt.NDArray[np.bool_]

    @property
    def parameters(self) -> int:
        """The length of the model's weight vector."""
        return len(self.trained)


@dataclass(frozen=True)
class Slot:
    """A trainable parameter of a module and where it lies in the weight vector."""

    tensor: nn.Parameter
    start: int

    @property
    def place(self) -> slice:
        """Its coordinates."""
        return slice(self.start, self.start + self.tensor.numel())


@dataclass(frozen=True)
class Opened:
    """What versions 0 to `round` mean to a reader. A function of them alone, the same for every reader.

    `weights` (parameters,) are the model's. `shared` (parameters,) is what else all have in common, such as
    a control variate, or empty. `version` is the newest version, decoded, and `moments` are a server
    optimiser's.
    """

    round: int
    version: Floats
    weights: Floats
    shared: Floats
    moments: tuple[Floats, ...] = ()

    def __repr__(self) -> str:
        return f"Opened(round={self.round}, parameters={self.weights.size}, values=<redacted>)"


@dataclass(frozen=True)
class Start:
    """What one hospital's training in a round starts from. `last_round`: the plan has no further one."""

    opened: Opened
    own: OwnState | None
    layout: Layout
    learning_rate: float
    last_round: bool


@dataclass(frozen=True)
class Finished:
    """`update`: what the hospital contributes, before it is weighed; `own`: what it keeps, or None."""

    update: npt.NDArray[np.floating]
    own: OwnState | None = None

    def __repr__(self) -> str:
        return f"Finished(update=<{self.update.size} values, redacted>)"


Correction = Callable[[], None]
"""Changes the gradients that a backward pass left, before the optimizer's step."""


class Weighing(Protocol):
    """How much each hospital counts in a round."""

    def weights(self, samples: Mapping[str, int]) -> dict[str, Fraction]:
        """Participant -> weight above 0, exact, from the number of images each one has; the sum is 1.

        Raises InvalidInput without participants, or when one of them has no images.
        """
        ...


class Strategy(Protocol):
    """How hospitals' training becomes one model."""

    @property
    def vectors(self) -> int:
        """How many vectors of the model's length a version and an update consist of. The first: weights."""
        ...

    @property
    def reads_all_versions(self) -> bool:
        """Whether weights follow from all versions so far, and not from the newest alone."""
        ...

    @property
    def keeps_state(self) -> bool:
        """Whether a hospital keeps something for itself from round to round."""
        ...

    def weights(self, samples: Mapping[str, int]) -> dict[str, Fraction]:
        """Participant -> weight, from the number of images each one has.

        Weights are exact fractions above 0 that sum to exactly 1. Each hospital applies its own weight
        before it deals its contribution, so the parties only add. Raises InvalidInput without participants,
        or when one of them has no images.
        """
        ...

    def open(self, before: Opened | None, version: Floats, layout: Layout) -> Opened:
        """What `version`, shape (vectors * parameters,), means after those `before`; None for the first.

        Elementwise float64 arithmetic only, so that every machine gets the same bits.
        """
        ...

    def start_weights(self, start: Start) -> Floats:
        """Where this hospital's training begins. Shape (parameters,)."""
        ...

    def correction(self, start: Start, slots: Sequence[Slot]) -> Correction | None:
        """What each step's gradients are changed by; None for nothing."""
        ...

    def finish(self, start: Start, update: npt.NDArray[np.float32], *, steps: int) -> Finished:
        """The contribution, from what training changed in `start_weights` by so many steps."""
        ...


class Averaging:
    """What FedAvg does; other strategies change parts of it."""

    @property
    def vectors(self) -> int:
        return 1

    @property
    def reads_all_versions(self) -> bool:
        return False

    @property
    def keeps_state(self) -> bool:
        return False

    def weights(self, samples: Mapping[str, int]) -> dict[str, Fraction]:
        """Weight n_k / n: the mean over hospitals of their updates, by number of images, exactly."""
        if not samples or min(samples.values()) < 1:
            raise InvalidInput("A round needs participants, and each of them needs at least one image.")
        total = sum(samples.values())
        return {participant: Fraction(count, total) for participant, count in samples.items()}

    def open(self, before: Opened | None, version: Floats, layout: Layout) -> Opened:
        del layout
        return Opened(0 if before is None else before.round + 1, version, version, np.zeros(0))

    def start_weights(self, start: Start) -> Floats:
        return start.opened.weights

    def correction(self, start: Start, slots: Sequence[Slot]) -> Correction | None:
        del start, slots
        return None

    def finish(self, start: Start, update: npt.NDArray[np.float32], *, steps: int) -> Finished:
        del start, steps
        return Finished(update)


def own_part(own: OwnState, name: str, *, length: int) -> Floats:
    """A named part of a hospital's own state. Raises FailedPrecondition when it is not this model's."""
    values = own.get(name)
    if values is None or values.shape != (length,) or not np.isfinite(values).all():
        raise FailedPrecondition(
            "What this hospital kept from its last round does not fit the model. It cannot take part in this "
            "study any more; its owner can revoke the approval."
        )
    return values


def rescaling(weights: Mapping[P, Fraction], survivors: Collection[P]) -> Fraction:
    """The public ratio by which the parties turn the survivors' sum into their mean; 1 when all survived.

    The sum of w_k u_k over the survivors, times 1 / (sum of their w_k), is their weighted mean.
    Raises InvalidInput when nobody survived or a survivor did not take part.
    """
    if not survivors or not set(survivors) <= weights.keys():
        raise InvalidInput("The survivors of a round must be some of its participants, and at least one.")
    return 1 / sum((weights[survivor] for survivor in set(survivors)), Fraction(0))
