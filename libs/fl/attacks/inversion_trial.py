"""The same attack on what a server without secure aggregation sees, on a share, on a sum, and on noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from torch import nn

from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.fl.attacks.inversion import Effort, Reconstruction, invert
from libs.fl.attacks.likeness import Likeness, match
from libs.fl.attacks.local_update import (
    LocalSteps,
    Update,
    private_plan,
    update_in_clear,
    update_with_noise,
)
from libs.fl.update_encoding import decode_vector, encode_update
from libs.models.registry import build_model
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.additive.sharing import split_compressed

OTHERS = 200
"""X-rays of other patients: the search begins at their mean, and originals are looked for among them."""

_SCALE_BITS, _BOUND = 20, 256.0
_RING = Ring.RING_32


class Sees(StrEnum):
    """What the attacker has in his hands."""

    NOTHING = "nothing"
    CLEAR = "clear"
    SHARE = "share"
    SUM = "sum"
    CLEAR_PRIVATE_MODEL = "clear_private_model"
    NOISE = "noise"


@dataclass(frozen=True)
class Trial:
    """What is tried: `images` of each of `hospitals`, two models, and epsilons for the second.

    `records` is how many images a hospital has from which the noise of an epsilon is planned.
    """

    images: int = 4
    hospitals: int = 3
    model: str = "small_cnn"
    private_model: str = "small_cnn_private"
    epsilons: tuple[float, ...] = (1.0, 8.0, 1000.0)
    delta: float = 1e-4
    records: int = 1500
    steps: LocalSteps = field(default_factory=LocalSteps)
    effort: Effort = field(default_factory=Effort)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.images <= 8 or not 2 <= self.hospitals <= 8:
            raise InvalidInput("The attack takes 1 to 8 images of each of 2 to 8 hospitals.")


@dataclass(frozen=True)
class Outcome:
    """One row: what was seen, what came out for each original (images, H, W) in [0, 1], and how like."""

    sees: Sees
    model: str
    epsilon: float | None
    reconstructions: npt.NDArray[np.float32]
    likeness: tuple[Likeness, ...]
    labels_right: bool | None
    mismatch: float | None

    @property
    def psnr_db(self) -> float:
        """Mean over the originals."""
        return float(np.mean([one.psnr_db for one in self.likeness]))

    @property
    def ssim(self) -> float:
        """Mean over the originals."""
        return float(np.mean([one.ssim for one in self.likeness]))

    @property
    def recognised(self) -> int:
        """Originals that are nearer to what came out than every other X-ray is."""
        return sum(one.rank == 1 for one in self.likeness)


@dataclass(frozen=True)
class Cast:
    """Who plays in a trial: the images of each hospital, the first being the victim, and other people's."""

    hospitals: tuple[ImageSet, ...]
    others: ImageSet

    @property
    def victim(self) -> ImageSet:
        """The hospital whose X-rays are looked for, in the order of every outcome."""
        return self.hospitals[0]

    @property
    def guess(self) -> npt.NDArray[np.uint8]:
        """The average of other people's X-rays. Shape (H, W)."""
        mean: npt.NDArray[np.uint8] = np.rint(self.others.images.mean(axis=0)).astype(np.uint8)
        return mean


def cast(images: ImageSet, trial: Trial) -> Cast:
    """One image of each of so many patients, drawn from the seed. Raises InvalidInput for too few."""
    order = np.random.default_rng(trial.seed).permutation(len(images))
    first_of = {images.patients[i]: int(i) for i in reversed(order.tolist())}
    chosen = sorted(first_of.values(), key=order.tolist().index)
    needed = trial.images * trial.hospitals
    if len(chosen) < needed + 2:
        raise InvalidInput(f"The attack needs X-rays of more than {needed + 1} patients, not {len(chosen)}.")
    parts = [chosen[k * trial.images : (k + 1) * trial.images] for k in range(trial.hospitals)]
    return Cast(
        hospitals=tuple(images.select(part) for part in parts),
        others=images.select(chosen[needed : needed + OTHERS]),
    )


def run(
    who: Cast, trial: Trial, *, on_progress: Callable[[str, float], None] | None = None
) -> Iterator[Outcome]:
    """Row by row, in the order of `Sees`. `on_progress` hears what is being attacked, and the fraction done.

    The attack is the same function with the same effort every time; only what it is given differs.
    """
    tell = on_progress or (lambda _what, _fraction: None)
    victim = who.victim
    yield _judge(Sees.NOTHING, trial.model, who, found=None, count=trial.images)
    module = _module(trial.model, victim, trial)
    weight = Fraction(1, trial.hospitals)
    contributions = [_encoded(update_in_clear(module, part, trial.steps), weight) for part in who.hospitals]

    def attack(sees: Sees, observed: Update, epsilon: float | None = None) -> Outcome:
        private = sees in (Sees.CLEAR_PRIVATE_MODEL, Sees.NOISE)
        hospitals = trial.hospitals if sees is Sees.SUM else 1
        name = sees.value if epsilon is None else f"{sees.value}, epsilon {epsilon:g}"
        found = invert(
            private_module if private else module,
            observed,
            count=trial.images * hospitals,
            hospitals=hospitals,
            steps=trial.steps,
            guess=who.guess,
            effort=trial.effort,
            seed=trial.seed,
            on_progress=lambda fraction: tell(name, fraction),
        )
        model = trial.private_model if private else trial.model
        return _judge(sees, model, who, found=found, count=trial.images, epsilon=epsilon)

    private_module = _module(trial.private_model, victim, trial)
    yield attack(Sees.CLEAR, _decoded(contributions[0], weight))
    share = split_compressed(contributions[0], _RING)[0].expand(len(contributions[0]), _RING)
    yield attack(Sees.SHARE, _decoded(share, weight))
    total: RingArray = np.sum(contributions, axis=0, dtype=_RING.dtype)
    yield attack(Sees.SUM, _decoded(total, Fraction(1)))
    if not trial.epsilons:
        return
    contribution = _encoded(update_in_clear(private_module, victim, trial.steps), weight)
    yield attack(Sees.CLEAR_PRIVATE_MODEL, _decoded(contribution, weight))
    for epsilon in trial.epsilons:
        noisy = _noisy_contribution(private_module, victim, trial, epsilon, weight)
        yield attack(Sees.NOISE, _decoded(noisy, weight), epsilon)


def _module(name: str, victim: ImageSet, trial: Trial) -> nn.Module:
    """Weights as before the first round, when gradients tell most."""
    return build_model(name, channels=1, classes=2, size=victim.size, seed=trial.seed)


def _noisy_contribution(
    module: nn.Module, victim: ImageSet, trial: Trial, epsilon: float, weight: Fraction
) -> RingArray:
    plan = private_plan(
        model=trial.private_model,
        image_size=victim.size,
        images=trial.records * trial.hospitals,
        epsilon=epsilon,
        delta=trial.delta,
    )
    update = update_with_noise(module, victim, trial.steps, plan=plan, records=trial.records)
    return _encoded(update, weight)


def _encoded(update: Update, weight: Fraction) -> RingArray:
    return encode_update(update, weight=weight, scale_bits=_SCALE_BITS, bound=_BOUND)


def _decoded(contribution: RingArray, weight: Fraction) -> Update:
    """As real numbers, the public weight taken out again."""
    return decode_vector(contribution, scale_bits=_SCALE_BITS) / float(weight)


def _judge(
    sees: Sees,
    model: str,
    who: Cast,
    *,
    found: Reconstruction | None,
    count: int,
    epsilon: float | None = None,
) -> Outcome:
    images = np.repeat(who.guess[None] / np.float32(255), count, axis=0) if found is None else found.images
    victim = who.victim
    likeness = match(victim.images / 255.0, images, others=who.others.images / 255.0)
    truth = victim.labels if sees is not Sees.SUM else np.concatenate([h.labels for h in who.hospitals])
    return Outcome(
        sees=sees,
        model=model,
        epsilon=epsilon,
        reconstructions=images[[one.index for one in likeness]].astype(np.float32),
        likeness=tuple(likeness),
        labels_right=None if found is None else sorted(truth.tolist()) == sorted(found.labels.tolist()),
        mismatch=None if found is None else found.mismatch,
    )
