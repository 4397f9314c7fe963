"""Plans as data: canonical, hashed, checked."""

import json

import pytest
from pydantic import ValidationError

from libs.core.errors import InvalidInput
from libs.fl.presets import default_plan
from libs.fl.training_plan import (
    Augmentation,
    Download,
    LearningRateSchedule,
    ModelAccess,
    PrivacyParameters,
    TrainingPlan,
)
from libs.models.registry import ARCHITECTURES

CLINIC = "spiffe://trefoil.local/client/clinic"


def _plan(**changes: object) -> TrainingPlan:
    return TrainingPlan(
        **{"model": "small_cnn", "image_size": 28, "rounds": 4, "learning_rate": 0.1} | changes
    )  # type: ignore[arg-type]


PRIVATE: dict[str, object] = {
    "model": "small_cnn_private",
    "privacy": {"target_epsilon": 8.0, "delta": 1e-5},
}


BELONGS_TO: dict[str, tuple[dict[str, object], dict[str, float]]] = {
    "proximal": ({"strategy": "fedprox", "proximal": {"mu": 0.1}}, {"mu": 0.2}),
    "server_optimizer": ({"strategy": "fedadam", "server_optimizer": {}}, {"tau": 0.1}),
    "step_decay": (
        {"lr_schedule": "step", "step_decay": {"every_rounds": 2, "factor": 0.5}},
        {"every_rounds": 3, "factor": 0.5},
    ),
}


def test_a_plan_survives_its_json_with_the_same_hash() -> None:
    plan = _plan(augmentation=Augmentation(shift=0.1), dataset_tags=("xray", "children"))
    again = TrainingPlan.from_json(plan.canonical_json())
    assert again == plan
    assert again.hash == plan.hash


def test_the_hash_does_not_depend_on_how_the_json_was_written() -> None:
    plan = _plan()
    loose = json.dumps(dict(reversed(json.loads(plan.canonical_json()).items())), indent=4).encode()
    assert TrainingPlan.from_json(loose).hash == plan.hash


@pytest.mark.parametrize("field", [f for f in TrainingPlan.model_fields if f != "strategy"])
def test_every_field_is_part_of_the_hash(field: str) -> None:
    changed = {
        "model": "medium_cnn",
        "optimizer": "adamw",
        "lr_schedule": "constant",
        "balance_classes": True,
        "augmentation": {"shift": 0.2},
        "dataset_tags": ("a",),
        "classes": 3,
        "channels": 3,
        "validation_fraction": 0.3,
        "model_access": {"ask_anyone": True},
        "class_weights": (1.0, 2.0),
        "early_stopping": {"patience": 2},
        "contribution_check": {"max_norm": 2.0},
    }
    if field in BELONGS_TO:
        with_it, other = BELONGS_TO[field]
        assert _plan(**with_it).hash != _plan(**with_it | {field: other}).hash
        return
    if field == "privacy":
        private = _plan(**PRIVATE)
        assert private.hash != _plan(**PRIVATE | {"privacy": None}).hash
        assert private.hash != _plan(**PRIVATE | {"privacy": {"target_epsilon": 4.0, "delta": 1e-5}}).hash
        return
    old = getattr(_plan(), field)
    new = changed.get(field, old / 2 if isinstance(old, float) and old else 0.25)
    if isinstance(old, int) and field not in changed:
        new = old + 1
    assert _plan(**{field: new}).hash != _plan().hash


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"", "plan"),
        (b"[]", "plan"),
        (b"{", "plan"),
        (b'{"model": "small_cnn"}', "image_size"),
        (b'{"model":"m","image_size":28,"rounds":1,"learning_rate":0.1,"code":"import os"}', "code"),
        (b'{"model":"m","image_size":28,"rounds":0,"learning_rate":0.1}', "rounds"),
        (b'{"model":"m","image_size":28,"rounds":1,"learning_rate":0.1,"quorum":1}', "quorum"),
        (b'{"model":"m","image_size":28,"rounds":1,"learning_rate":NaN}', "plan"),
        (b'{"model":"m","image_size":28,"rounds":1,"learning_rate":1e999}', "learning_rate"),
        (b'{"model":"m","image_size":28,"rounds":1,"learning_rate":0.1,"optimizer":"x"}', "optimizer"),
        (b'{"model":"m","image_size":28,"rounds":1,"learning_rate":0.1,"update_bound":8192}', "scale_bits"),
        (b" " * 100_000, "65536"),
    ],
)
def test_a_wrong_plan_is_refused_and_its_fault_named(text: bytes, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        TrainingPlan.from_json(text)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (PRIVATE | {"model": "small_cnn"}, "small_cnn_private"),
        (PRIVATE | {"model": "resnet18"}, "without BatchNorm"),
        (PRIVATE | {"balance_classes": True}, "balance_classes"),
        (PRIVATE | {"privacy": {"target_epsilon": 8.0}}, "privacy.delta"),
        (PRIVATE | {"privacy": {"target_epsilon": 0, "delta": 1e-5}}, "target_epsilon"),
        (PRIVATE | {"privacy": {"target_epsilon": 1, "delta": 0}}, "delta"),
        (PRIVATE | {"privacy": {"target_epsilon": 1, "delta": 0.5}}, "delta"),
        (PRIVATE | {"privacy": {"target_epsilon": 1, "delta": 1e-5, "unit": "pixel"}}, "unit"),
        (
            PRIVATE | {"privacy": {"target_epsilon": 1, "delta": 1e-5, "noise_multiplier": 0}},
            "noise_multiplier",
        ),
        (PRIVATE | {"privacy": {"target_epsilon": 1, "delta": 1e-5, "max_grad_norm": -1}}, "max_grad_norm"),
        ({"model_access": {"ask": ["clinic"]}}, "model_access.ask"),
        ({"model_access": {"ask": ["spiffe://trefoil.local/hospital/north"]}}, "model_access.ask"),
        ({"model_access": {"ask": [CLINIC + "/../x"]}}, "model_access.ask"),
        ({"model_access": {"ask": [CLINIC + chr(10)]}}, "model_access.ask"),
        ({"model_access": {"ask": [CLINIC, CLINIC]}}, "name each once"),
        ({"model_access": {"ask": [CLINIC], "ask_anyone": True}}, "leave ask empty"),
        ({"model_access": {"download": "everybody"}}, "download"),
        ({"model_access": {"max_predictions": 0}}, "max_predictions"),
        ({"model_access": {"owner": "me"}}, "owner"),
    ],
)
def test_privacy_and_access_that_cannot_be_are_refused(changes: dict[str, object], named: str) -> None:
    values = {"model": "small_cnn", "image_size": 28, "rounds": 4, "learning_rate": 0.1} | changes
    with pytest.raises(InvalidInput, match=named):
        TrainingPlan.checked(values)


def test_by_itself_a_model_is_asked_by_nobody_named_and_read_by_the_readers() -> None:
    access = _plan().model_access
    assert (access.ask, access.ask_anyone, access.max_predictions) == ((), False, None)
    assert access.download is Download.READERS


def test_privacy_and_access_survive_the_json() -> None:
    plan = _plan(**PRIVATE, model_access={"ask": [CLINIC], "download": "nobody", "max_predictions": 1000})
    assert TrainingPlan.from_json(plan.canonical_json()) == plan


def test_a_plan_cannot_be_changed_after_it_was_made() -> None:
    with pytest.raises(ValidationError):
        _plan().rounds = 5  # type: ignore[misc]


def test_the_cosine_schedule_falls_from_the_rate_towards_its_end() -> None:
    plan = _plan(rounds=10, final_learning_rate=0.01)
    rates = [plan.learning_rate_in(round_number=r) for r in range(1, 11)]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert 0.01 < rates[-1] < 0.02


def test_the_constant_schedule_is_constant() -> None:
    plan = _plan(lr_schedule=LearningRateSchedule.CONSTANT)
    assert {plan.learning_rate_in(round_number=r) for r in range(1, 5)} == {0.1}


@pytest.mark.parametrize("round_number", [0, 5])
def test_a_round_outside_the_plan_is_refused(round_number: int) -> None:
    with pytest.raises(InvalidInput, match="rounds 1 to 4"):
        _plan().learning_rate_in(round_number=round_number)


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_there_is_a_preset_for_every_model(model: str) -> None:
    plan = default_plan(model=model, image_size=64, images=1000)
    assert plan.model == model
    assert plan.balance_classes
    assert default_plan(model=model, image_size=64, images=1000, rounds=3).rounds == 3


def test_a_private_preset_has_noise_and_access_as_asked() -> None:
    privacy = PrivacyParameters(target_epsilon=4.0, delta=1e-5)
    access = ModelAccess(ask=(CLINIC,))
    plan = default_plan(
        model="small_cnn_private", image_size=28, images=1000, privacy=privacy, model_access=access
    )
    assert (plan.privacy, plan.model_access) == (privacy, access)
    assert not plan.balance_classes
    assert default_plan(model="small_cnn", image_size=28, images=1000).privacy is None


def test_small_data_sets_get_more_rounds() -> None:
    few = default_plan(model="small_cnn", image_size=28, images=500)
    many = default_plan(model="small_cnn", image_size=28, images=50_000)
    assert few.rounds > many.rounds


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "fedprox"}, "proximal belongs to"),
        ({"proximal": {"mu": 0.1}}, "proximal belongs to"),
        ({"strategy": "fedadam"}, "server_optimizer belongs to"),
        ({"strategy": "scaffold", "momentum": 0.0, "server_optimizer": {}}, "server_optimizer belongs to"),
        ({"strategy": "fedprox", "proximal": {"mu": 0.0}}, "greater than 0"),
        ({"strategy": "fedadam", "server_optimizer": {"beta_2": 1.0}}, "less than 1"),
        ({"strategy": "fedprox", "proximal": {"mu": 0.1}, **PRIVATE}, "does not go with privacy"),
        ({"strategy": "fedbn", "model": "small_cnn_private"}, "has none"),
        ({"strategy": "fedbn", "rounds": 1}, "more rounds"),
        ({"strategy": "fedbn", "early_stopping": {"patience": 1}}, "would not reach"),
        ({"strategy": "scaffold"}, "momentum to 0"),
        ({"strategy": "scaffold", "momentum": 0.0, "optimizer": "adamw"}, "momentum to 0"),
        ({"strategy": "scaffold", "momentum": 0.0, **PRIVATE}, "gradients without noise"),
        (
            {"strategy": "scaffold", "momentum": 0.0, "contribution_check": {"max_norm": 1.0}},
            "measures weights",
        ),
        ({"early_stopping": {"patience": 1}, **PRIVATE}, "goes by metrics"),
        ({"early_stopping": {"patience": 0}}, "patience"),
        ({"lr_schedule": "step"}, "step_decay belongs to"),
        ({"step_decay": {"every_rounds": 1, "factor": 0.5}}, "step_decay belongs to"),
        ({"lr_schedule": "exponential"}, "give final_learning_rate"),
        ({"warmup_rounds": 4}, "fewer than rounds"),
        ({"class_weights": (1.0,)}, "each of the 2 classes"),
        ({"class_weights": (1.0, 2.0), "balance_classes": True}, "use one"),
        ({"class_weights": (1.0, 2.0), **PRIVATE}, "class_weights does not go with privacy"),
        ({"client_fraction": 0.0}, "client_fraction"),
    ],
)
def test_what_makes_no_sense_together_is_refused_in_words(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        TrainingPlan.checked(
            {"model": "small_cnn", "image_size": 28, "rounds": 4, "learning_rate": 0.1} | changes
        )


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({"lr_schedule": "constant"}, [0.8, 0.8, 0.8, 0.8]),
        ({"lr_schedule": "step", "step_decay": {"every_rounds": 2, "factor": 0.5}}, [0.8, 0.8, 0.4, 0.4]),
        ({"lr_schedule": "exponential", "final_learning_rate": 0.05}, [0.8, 0.4, 0.2, 0.1]),
        ({"lr_schedule": "constant", "warmup_rounds": 3}, [0.2, 0.4, 0.6, 0.8]),
        (
            {"lr_schedule": "exponential", "final_learning_rate": 0.05, "warmup_rounds": 1},
            [0.4, 0.4, 0.2, 0.1],
        ),
    ],
)
def test_the_learning_rate_follows_its_schedule(changes: dict[str, object], rates: list[float]) -> None:
    plan = _plan(learning_rate=0.8, **changes)
    assert [plan.learning_rate_in(round_number=n) for n in range(1, 5)] == pytest.approx(rates)
