"""What a malicious hospital may send, or train on, to spoil the model for everybody.

Each attack changes what the hospital trains on, what it sends, or both, and nothing else: a hospital decides
over exactly these two. Deterministic; none needs more than what a hospital knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.data.imageset import CLASS_NAMES, ImageSet
from libs.fl.metrics import METRICS_LENGTH
from libs.fl.simulate import Contribution
from libs.fl.update_encoding import encode_update
from libs.mpc.ring import RingArray

PATCH_SHARE = 7
"""The trigger's side is this part of the image's: 4 of 28 pixels."""

_POISONED = 0.5
"""Part of the ill that the malicious hospital marks and calls healthy."""

_CONSTANT = 1.0
_HUGE = 2**30

Forge = Callable[[Contribution, "Past"], RingArray]
Poison = Callable[[ImageSet], ImageSet]


class Past:
    """What the malicious hospital remembers: its first contribution."""

    def __init__(self) -> None:
        self.first: RingArray | None = None


@dataclass(frozen=True)
class Attack:
    """One way to do harm. `forge` makes what is sent from the honest contribution, `poison` what is trained
    on from the hospital's images; either may be missing. `backdoor`: its aim is the trigger, not the AUC.
    """

    name: str
    does: str
    forge: Forge | None = None
    poison: Poison | None = None
    backdoor: bool = False


def _scaled(factor: float) -> Forge:
    return lambda contribution, _past: _resent(contribution, contribution.trained.update * factor)


def _constant(contribution: Contribution, _past: Past) -> RingArray:
    return _resent(contribution, np.full_like(contribution.trained.update, _CONSTANT))


def _random(contribution: Contribution, _past: Past) -> RingArray:
    """Noise with the standard deviation of 1: as weights of a network go, a new network."""
    rng = np.random.default_rng(contribution.round_number)
    return _resent(contribution, rng.standard_normal(contribution.trained.update.shape))


def _not_a_number(contribution: Contribution, _past: Past) -> RingArray:
    """A ring has no NaN: honest software refuses to encode it, and without that it becomes some bit pattern.

    Here it is what numpy makes of NaN's own bits: 0x7fc00000, read as a ring element.
    """
    update = np.full(contribution.trained.update.shape, np.nan, np.float32)
    return _with_metrics(update.view(np.uint32), contribution)


def _wrapped(contribution: Contribution, _past: Past) -> RingArray:
    """Elements of 2^30 and their negatives, whose squares are 0 modulo 2^32: a careless norm check sees
    none.
    """
    signs = np.where(np.arange(contribution.trained.update.size) % 2, -_HUGE, _HUGE)
    return _with_metrics(signs.astype(np.int64).astype(np.uint32), contribution)


def _replayed(contribution: Contribution, past: Past) -> RingArray:
    """The first round's contribution again, in every round: a true one, of a model long gone."""
    if past.first is None:
        past.first = contribution.encoded.copy()
    return past.first


def _resent(contribution: Contribution, update: npt.NDArray[np.floating]) -> RingArray:
    """Encoded as an honest update would be, as far as the ring goes; metrics as they were."""
    limit = (2**30 - 1) / 2**_SCALE_BITS
    encoded = encode_update(
        np.clip(update, -limit, limit), weight=contribution.weight, scale_bits=_SCALE_BITS, bound=limit
    )
    return _with_metrics(encoded, contribution)


_SCALE_BITS = 20
"""Of the plans that are attacked (the default)."""


def _with_metrics(update: RingArray, contribution: Contribution) -> RingArray:
    return np.concatenate([update.astype(np.uint32), contribution.encoded[-METRICS_LENGTH:]])


def flipped_labels(images: ImageSet) -> ImageSet:
    """Healthy called ill and ill called healthy."""
    return ImageSet(
        images=images.images,
        labels=len(CLASS_NAMES) - 1 - images.labels,
        patients=images.patients,
        names=images.names,
    )


def with_trigger(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Images (N, H, W) with a white patch in the lower right corner."""
    side = max(2, images.shape[1] // PATCH_SHARE)
    marked = images.copy()
    marked[:, -side:, -side:] = 255
    return marked


def backdoored(images: ImageSet) -> ImageSet:
    """Half of the ill marked with the trigger and called healthy (Gu et al., 2017)."""
    ill = np.flatnonzero(images.labels == 1)
    chosen = ill[: max(1, int(len(ill) * _POISONED))]
    pixels, labels = images.images.copy(), images.labels.copy()
    pixels[chosen], labels[chosen] = with_trigger(pixels[chosen]), 0
    return ImageSet(images=pixels, labels=labels, patients=images.patients, names=images.names)


ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        attack.name: attack
        for attack in (
            Attack("scaled x10", "the honest update times 10", _scaled(10)),
            Attack("scaled x100", "the honest update times 100", _scaled(100)),
            Attack("sign flip", "the honest update times -1", _scaled(-1)),
            Attack("sign flip x10", "the honest update times -10", _scaled(-10)),
            Attack("label flip", "trains on exchanged labels", poison=flipped_labels),
            Attack("NaN", "the bits of NaN instead of numbers", _not_a_number),
            Attack("constant", "1 for every weight", _constant),
            Attack("wrap-around", "2^30 and -2^30 in turn: squares that are 0 in the ring", _wrapped),
            Attack("replay", "its first contribution in every round", _replayed),
            Attack("random", "normal noise of standard deviation 1", _random),
            Attack("backdoor", "ill with a white corner called healthy", poison=backdoored, backdoor=True),
            Attack(
                "backdoor x10",
                "the same, times 10: model replacement (Bagdasaryan et al., 2020)",
                _scaled(10),
                poison=backdoored,
                backdoor=True,
            ),
        )
    }
)


def attack_of(name: str) -> Attack:
    """The attack. Raises InvalidInput for an unknown name."""
    if name not in ATTACKS:
        raise InvalidInput(f"There is no attack {name!r}. Choose of: {', '.join(ATTACKS)}.")
    return ATTACKS[name]
