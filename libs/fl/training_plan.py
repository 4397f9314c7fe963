"""What the hospitals are asked to do: declarative, hashed, and approved by each data owner.

A plan is data. It names an architecture and numbers; it cannot carry code. Hospitals approve the hash of its
canonical JSON, so no word of it can change afterwards.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from libs.core.errors import InvalidInput
from libs.fl.frozen import Frozen, invalid_plan
from libs.fl.privacy_parameters import PrivacyParameters, PrivacyUnit
from libs.fl.strategy_parameters import (
    EarlyStopping,
    Proximal,
    ServerOptimizer,
    StepDecay,
    Strategy,
    strategy_problem,
)
from libs.models.private import TRAIN_PRIVATELY

_MAX_JSON_BYTES = 64 * 1024

LARGEST_NORM_UNITS = 2**24
"""In ring units; beyond it the parties could not square what they check without wrapping around."""


class Optimizer(StrEnum):
    """The rule that turns gradients into steps, within one hospital and one round."""

    SGD = "sgd"
    ADAMW = "adamw"


class LearningRateSchedule(StrEnum):
    """How the learning rate changes over the rounds."""

    CONSTANT = "constant"
    COSINE = "cosine"
    STEP = "step"
    EXPONENTIAL = "exponential"


class Download(StrEnum):
    """Who may fetch versions of the weights in clear while and after the study trains."""

    NOBODY = "nobody"
    READERS = "readers"


class Augmentation(Frozen):
    """Random changes of each training image, drawn anew every epoch. Zero switches one off."""

    shift: float = Field(default=0.0, ge=0, le=0.5, description="largest shift, as a fraction of the side")
    rotation_degrees: float = Field(default=0.0, ge=0, le=180)
    zoom: float = Field(default=0.0, ge=0, le=0.5, description="largest relative change of size")
    brightness: float = Field(default=0.0, ge=0, le=1, description="largest offset, in units of full scale")
    contrast: float = Field(default=0.0, ge=0, le=0.9, description="largest relative change of contrast")
    noise: float = Field(default=0.0, ge=0, le=1, description="standard deviation, in units of full scale")


_CLIENT = re.compile(r"spiffe://[a-z0-9.-]{1,128}/client/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def _client(text: str) -> str:
    if not _CLIENT.fullmatch(text):
        raise ValueError("name a client as its certificate does, like spiffe://trefoil.local/client/clinic")
    return text


class ModelAccess(Frozen):
    """What may be done with the model. Besides those named here, the study's creator may ask it."""

    download: Download = Download.READERS
    ask: tuple[Annotated[str, AfterValidator(_client)], ...] = Field(
        default=(), max_length=256, description="clients that may ask the released model"
    )
    ask_anyone: bool = Field(default=False, description="every client of the federation may ask it")
    max_predictions: int | None = Field(default=None, ge=1, le=10**12, description="of all clients together")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.ask_anyone and self.ask:
            raise ValueError("ask_anyone lets every client ask; leave ask empty, or name clients only")
        if len(set(self.ask)) != len(self.ask):
            raise ValueError("ask names a client twice; name each once")
        return self


class ContributionCheck(Frozen):
    """What the parties check of each contribution, under encryption, before they add it."""

    max_norm: float = Field(
        gt=0, le=2**16, description="L2 norm of an update; hospitals scale longer ones down to it"
    )
    first_max_norm: float | None = Field(
        default=None,
        gt=0,
        le=2**16,
        description="in the first round: BatchNorm learns the images' statistics, a long way",
    )

    @model_validator(mode="after")
    def _widest_first(self) -> Self:
        if self.first_max_norm is not None and self.first_max_norm < self.max_norm:
            raise ValueError("first_max_norm must be at least max_norm; leave it out where they are the same")
        return self

    def max_norm_in(self, *, round_number: int) -> float:
        """The largest L2 norm of an update in a round, counted from 1."""
        first = self.first_max_norm if round_number == 1 else None
        return self.max_norm if first is None else first


class TrainingPlan(Frozen):
    """One study's training, complete: the same plan, data and seed give the same model.

    Numbers of time are in seconds. `update_bound` is the largest absolute change of a coordinate that a
    hospital may contribute; `scale_bits` the fixed-point precision of model versions.
    """

    model: str = Field(min_length=1, max_length=64)
    image_size: int = Field(ge=8, le=1024)
    channels: int = Field(default=1, ge=1, le=4)
    classes: int = Field(default=2, ge=2, le=1000)
    rounds: int = Field(ge=1, le=1000)
    local_epochs: int = Field(default=1, ge=1, le=100)
    batch_size: int = Field(default=64, ge=2, le=4096)
    optimizer: Optimizer = Optimizer.SGD
    learning_rate: float = Field(gt=0, le=10)
    final_learning_rate: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="where cosine and exponential schedules would end, one round after the last",
    )
    lr_schedule: LearningRateSchedule = LearningRateSchedule.COSINE
    step_decay: StepDecay | None = Field(default=None, description="of the step schedule, which needs it")
    warmup_rounds: int = Field(
        default=0, ge=0, le=1000, description="in which the rate rises evenly towards the schedule's"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    balance_classes: bool = Field(
        default=False, description="train for equally common classes, whatever each hospital's own mix"
    )
    class_weights: tuple[Annotated[float, Field(gt=0, le=1000)], ...] | None = Field(
        default=None, description="each class's weight in the loss, the same at all hospitals"
    )
    augmentation: Augmentation = Augmentation()
    strategy: Strategy = Strategy.FEDAVG
    proximal: Proximal | None = Field(default=None, description="of fedprox, which needs it")
    server_optimizer: ServerOptimizer | None = Field(
        default=None, description="of fedadam and fedyogi, which need it"
    )
    client_fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="of the hospitals present that train in a round; never below quorum",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="without it, training takes all rounds"
    )
    quorum: int = Field(
        default=2,
        ge=2,  # the sum over one hospital is that hospital's update
        le=1000,
        description="hospitals without which a round is void",
    )
    round_deadline_s: float = Field(default=600.0, gt=0, le=86400)
    scale_bits: int = Field(default=20, ge=8, le=24)
    update_bound: float = Field(default=256.0, gt=0, le=2**20)
    validation_fraction: float = Field(default=0.1, gt=0, le=0.5)
    seed: int = Field(default=0, ge=0, lt=2**32)
    dataset_tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), max_length=32
    )
    privacy: PrivacyParameters | None = Field(
        default=None, description="without it, contributions and metrics carry no noise"
    )
    model_access: ModelAccess = ModelAccess()
    contribution_check: ContributionCheck | None = Field(
        default=None, description="without it, one hospital can move the model as far as it likes"
    )

    @model_validator(mode="after")
    def _checks_within_the_ring(self) -> Self:
        check = self.contribution_check
        widest = 0.0 if check is None else check.max_norm_in(round_number=1)
        if widest * 2**self.scale_bits >= LARGEST_NORM_UNITS:
            raise ValueError(
                f"norms of contribution_check times 2^scale_bits must stay below {LARGEST_NORM_UNITS}; lower "
                "them or scale_bits"
            )
        return self

    @model_validator(mode="after")
    def _trains_privately(self) -> Self:
        if self.privacy is None:
            return self
        if self.privacy.unit is PrivacyUnit.HOSPITAL:
            if self.contribution_check is None or self.contribution_check.first_max_norm is not None:
                raise ValueError(
                    "privacy of hospitals needs contribution_check with one max_norm for all rounds, which "
                    "bounds what a hospital can change"
                )
            return self
        if self.model not in TRAIN_PRIVATELY:
            raise ValueError(
                f"privacy needs a model without BatchNorm, which mixes the images of a batch: choose one of "
                f"{', '.join(sorted(TRAIN_PRIVATELY))}"
            )
        if self.balance_classes:
            raise ValueError(
                "balance_classes reads a hospital's class frequencies, which no noise protects; switch it "
                "off in a plan with privacy"
            )
        return self

    @model_validator(mode="after")
    def _trains_sensibly(self) -> Self:
        for problem in (strategy_problem(self), self._schedule_problem(), self._class_weights_problem()):
            if problem:
                raise ValueError(problem)
        if self.early_stopping is not None and self.privacy is not None:
            raise ValueError(
                "early_stopping goes by metrics, and with privacy no hospital tells any: leave it out"
            )
        return self

    def _schedule_problem(self) -> str:
        schedule = self.lr_schedule
        if (self.step_decay is not None) != (schedule is LearningRateSchedule.STEP):
            return "step_decay belongs to the step schedule, which needs it: give both or neither"
        if schedule is LearningRateSchedule.EXPONENTIAL and not self.final_learning_rate:
            return "an exponential schedule never ends at 0: give final_learning_rate"
        if self.warmup_rounds >= self.rounds:
            return "warmup_rounds must be fewer than rounds"
        return ""

    def _class_weights_problem(self) -> str:
        if self.class_weights is None:
            return ""
        if len(self.class_weights) != self.classes:
            return f"class_weights needs one weight for each of the {self.classes} classes"
        if self.balance_classes:
            return "balance_classes and class_weights both correct for how common classes are: use one"
        if self.privacy is not None:
            return "class_weights does not go with privacy yet: leave it out"
        return ""

    @model_validator(mode="after")
    def _fits_the_ring(self) -> Self:
        if self.update_bound * 2**self.scale_bits >= 2**30:
            raise ValueError("update_bound * 2^scale_bits must stay below 2^30; lower one of them")
        return self

    def learning_rate_in(self, *, round_number: int) -> float:
        """The learning rate of a round, counted from 1 to `rounds`: the same in all hospitals."""
        if not 1 <= round_number <= self.rounds:
            raise InvalidInput(f"This plan has rounds 1 to {self.rounds}, not {round_number}.")
        return self._scheduled(round_number) * min(1.0, round_number / (self.warmup_rounds + 1))

    def _scheduled(self, round_number: int) -> float:
        done = (round_number - 1) / self.rounds
        match self.lr_schedule:
            case LearningRateSchedule.CONSTANT:
                return self.learning_rate
            case LearningRateSchedule.STEP:
                assert self.step_decay is not None  # checked above
                falls = (round_number - 1) // self.step_decay.every_rounds
                return float(self.learning_rate * self.step_decay.factor**falls)
            case LearningRateSchedule.EXPONENTIAL:
                return float(self.learning_rate * (self.final_learning_rate / self.learning_rate) ** done)
            case LearningRateSchedule.COSINE:
                share_left = (1 + math.cos(math.pi * done)) / 2
                return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * share_left

    def canonical_json(self) -> bytes:
        """The one JSON form of this plan: keys sorted, no spaces, every field present, ASCII."""
        return json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True
        ).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Parse and check a plan. Raises InvalidInput naming every wrong field."""
        if len(text) > _MAX_JSON_BYTES:
            raise InvalidInput(f"A training plan has at most {_MAX_JSON_BYTES} bytes.")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise invalid_plan(error) from None

    @property
    def hash(self) -> str:
        """SHA-256 of `canonical_json()`, hex: what a data owner approves."""
        return hashlib.sha256(self.canonical_json()).hexdigest()
