"""X-rays from updates: where they come out, and where they must not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.data.phantom import make_phantoms
from libs.fl.attacks.inversion import Effort, Reconstruction, invert
from libs.fl.attacks.inversion_trial import Cast, Sees, Trial, cast, run
from libs.fl.attacks.likeness import match, psnr, ssim
from libs.fl.attacks.local_update import LocalSteps, Update, private_plan, update_in_clear, update_with_noise
from libs.fl.update_encoding import decode_vector, encode_update
from libs.models.registry import build_model
from libs.mpc.ring import Ring
from libs.mpc.schemes.additive.sharing import split_compressed

EFFORT = Effort(iterations=200)
STEPS = LocalSteps()
SEEN_DB = 19.0
"""Above this an image is plainly there; the average X-ray is some 14 dB from this one."""


@pytest.fixture(scope="module")
def who() -> Cast:
    return cast(make_phantoms(240, size=28, seed=0), Trial(images=1))


def attacked(who: Cast, observed: Update, *, model: str = "small_cnn") -> Reconstruction:
    module = build_model(model, channels=1, classes=2, size=28, seed=0)
    return invert(module, observed, count=1, steps=STEPS, guess=who.guess, effort=EFFORT, seed=0)


def clear(who: Cast, *, model: str = "small_cnn") -> Update:
    return update_in_clear(build_model(model, channels=1, classes=2, size=28, seed=0), who.victim, STEPS)


def quality(who: Cast, found: Reconstruction) -> float:
    return psnr(who.victim.images[0] / 255.0, found.images[0])


def rank(who: Cast, found: Reconstruction) -> int:
    return match(who.victim.images / 255.0, found.images, others=who.others.images / 255.0)[0].rank


def test_one_image_comes_back_from_its_update_in_clear(who: Cast) -> None:
    encoded = encode_update(clear(who), weight=Fraction(1), scale_bits=20, bound=256.0)
    found = attacked(who, decode_vector(encoded, scale_bits=20))
    assert quality(who, found) > SEEN_DB
    assert rank(who, found) == 1
    assert found.labels.tolist() == who.victim.labels.tolist()
    assert psnr(who.victim.images[0] / 255.0, who.guess / 255.0) < SEEN_DB - 4  # and not from the guess


def test_nothing_comes_back_from_a_share_of_the_same_update(who: Cast) -> None:
    encoded = encode_update(clear(who), weight=Fraction(1), scale_bits=20, bound=256.0)
    share = split_compressed(encoded, Ring.RING_32)[1].expand(len(encoded), Ring.RING_32)
    found = attacked(who, decode_vector(share, scale_bits=20))
    assert quality(who, found) < psnr(who.victim.images[0] / 255.0, who.guess / 255.0) + 1


def test_noise_hides_what_comes_back_from_the_same_model_without_it(who: Cast) -> None:
    """By SSIM: the filters of this model do not see brightness, which PSNR asks for."""
    name, original = "small_cnn_private", who.victim.images[0] / 255.0
    found = attacked(who, clear(who, model=name), model=name)
    assert rank(who, found) == 1
    assert ssim(original, found.images[0]) > ssim(original, who.guess / 255.0) + 0.1
    plan = private_plan(model=name, image_size=28, images=1500, epsilon=8.0, delta=1e-4)
    module = build_model(name, channels=1, classes=2, size=28, seed=0)
    noisy = update_with_noise(module, who.victim, STEPS, plan=plan, records=500)
    assert ssim(original, attacked(who, noisy, model=name).images[0]) < 0.4


def test_a_trial_has_a_row_for_each_thing_an_attacker_may_see_and_repeats(who: Cast) -> None:
    trial = Trial(images=1, hospitals=2, epsilons=(8.0,), effort=Effort(iterations=2))
    cast_again = cast(make_phantoms(240, size=28, seed=0), trial)
    first, second = (list(run(cast_again, trial)) for _ in range(2))
    assert [one.sees for one in first] == list(Sees)
    repeated = {Sees.NOTHING, Sees.CLEAR, Sees.SUM, Sees.CLEAR_PRIVATE_MODEL}  # shares and noise are fresh
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.reconstructions, b.reconstructions) == (a.sees in repeated)


def test_the_cast_are_different_patients() -> None:
    who = cast(make_phantoms(240, size=28, seed=0), Trial(images=4, hospitals=3))
    people = [p for part in (*who.hospitals, who.others) for p in part.patients]
    assert len(set(people)) == len(people)


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(InvalidInput, match="patients"):
        cast(make_phantoms(20, size=28, seed=0), Trial(images=8, hospitals=3))


def test_likeness_is_largest_for_the_image_itself_and_matches_each_with_its_own() -> None:
    images = make_phantoms(40, size=28, seed=1).images / 255.0
    assert psnr(images[0], images[0]) == 100.0
    assert ssim(images[0], images[0]) == pytest.approx(1.0)
    assert ssim(images[0], 1 - images[0]) < 0.2
    assert psnr(np.zeros((4, 4)), np.full((4, 4), 0.1)) == pytest.approx(20.0)
    found = match(images[:3], images[[2, 0, 1]], others=images[3:])
    assert [(one.index, one.rank) for one in found] == [(1, 1), (2, 1), (0, 1)]
