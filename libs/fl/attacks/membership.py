"""Whether an image was trained on, guessed from how sure a model is of it.

Four guesses, each a score that is higher for members. What every one of them may use: the model's answer, the
image's true class, and models that others trained on images of the same kind (`shadows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_LEAST_SPREAD = 1e-3


class Score(Protocol):
    """Higher for images that the target probably learnt from."""

    def __call__(self, target: Floats, shadows: Floats, inside: Flags, /) -> Floats:
        """Scores (N,) from margins of the target (N,) and of shadows (M, N).

        A margin is the logit of the true class's probability. `inside` (M, N): which shadow learnt from what.
        """
        ...


def margins(logits: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """log(p / (1 - p)) for the probability p of each image's true class. logits (N, 2). Shape (N,).

    Computed from logits, since p itself rounds to 1 (Carlini et al., 2022, section IV).
    """
    if logits.ndim != 2 or logits.shape[1] != 2 or len(labels) != len(logits):
        raise InvalidInput("Margins are made of two logits and one label per image.")
    difference: Floats = logits[:, 1].astype(np.float64) - logits[:, 0]
    return np.where(labels == 1, difference, -difference)


def losses(margin: Floats) -> Floats:
    """Cross entropy, log(1 + exp(-margin))."""
    return np.logaddexp(0.0, -margin)


def by_loss(target: Floats, _shadows: Floats, _inside: Flags) -> Floats:
    """The smaller the loss, the likelier a member (Yeom et al., 2018). Needs no shadow."""
    return -losses(target)


def calibrated(target: Floats, shadows: Floats, inside: Flags) -> Floats:
    """How much smaller the loss is than that of models without the image (Watson et al., 2022)."""
    return _mean(losses(shadows), ~inside) - losses(target)


def lira_offline(target: Floats, shadows: Floats, inside: Flags) -> Floats:
    """By how many standard deviations the margin lies above that of models without the image.

    The likelihood ratio attack, offline (Carlini et al., 2022), with one spread for all images, which it
    prefers where there are few shadows.
    """
    return (target - _mean(shadows, ~inside)) / _spread(shadows, ~inside)


def lira_online(target: Floats, shadows: Floats, inside: Flags) -> Floats:
    """log of how much likelier the margin is among models with the image than among those without it.

    The strongest of the four: it has trained models on the very image that it asks about.
    """
    return _log_density(target, shadows, inside) - _log_density(target, shadows, ~inside)


SCORES: Mapping[str, Score] = MappingProxyType(
    {
        "loss": by_loss,
        "calibrated": calibrated,
        "lira_offline": lira_offline,
        "lira_online": lira_online,
    }
)


def _mean(values: Floats, chosen: Flags) -> Floats:
    """Over the chosen shadows of each image. Shape (N,)."""
    count = chosen.sum(axis=0)
    if not count.all():
        raise InvalidInput("Each image needs a shadow that learnt from it and one that did not. Train more.")
    mean: Floats = np.where(chosen, values, 0.0).sum(axis=0) / count
    return mean


def _spread(values: Floats, chosen: Flags) -> float:
    """Standard deviation of the chosen values about each image's own mean, over all images together."""
    deviations = np.where(chosen, values - _mean(values, chosen), 0.0)
    freedom = max(1, int(chosen.sum()) - chosen.shape[1])
    return max(_LEAST_SPREAD, float(np.sqrt((deviations**2).sum() / freedom)))


def _log_density(target: Floats, shadows: Floats, chosen: Flags) -> Floats:
    spread = _spread(shadows, chosen)
    density: Floats = -0.5 * ((target - _mean(shadows, chosen)) / spread) ** 2 - np.log(spread)
    return density
