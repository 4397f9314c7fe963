"""Versions of a study's model: how long they are, the first one, and what they mean to their readers.

A version is a ring vector that the parties keep as shares: `Strategy.vectors` vectors as long as the weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import nn

from libs.core.errors import InvalidInput
from libs.fl.strategies.registry import strategy_of
from libs.fl.strategies.strategy import Floats, Opened
from libs.fl.training_plan import TrainingPlan
from libs.fl.update_encoding import decode_vector, encode_weights
from libs.fl.vectorise import layout_of, load_state_vector, parameter_count, state_vector
from libs.models.registry import build_model
from libs.mpc.ring import RingArray


def first_module(plan: TrainingPlan) -> nn.Module:
    """The architecture with the first version's weights: the plan and its seed decide them."""
    return build_model(
        plan.model, channels=plan.channels, classes=plan.classes, size=plan.image_size, seed=plan.seed
    )


def version_length(plan: TrainingPlan) -> int:
    """Elements of every version and update of this plan: what coordinator and parties are told."""
    return strategy_of(plan).vectors * parameter_count(first_module(plan))


def first_version(plan: TrainingPlan) -> RingArray:
    """What the scientist deals: the fresh weights, and zeros for what else the strategy shares."""
    weights = state_vector(first_module(plan)).astype(np.float64)
    others = np.zeros((strategy_of(plan).vectors - 1) * weights.size)
    return encode_weights(np.concatenate([weights, others]), scale_bits=plan.scale_bits)


class Reader:
    """What versions mean, opened one after the other. Holds one model in memory, and what `Opened` holds."""

    def __init__(self, plan: TrainingPlan, *, opened: Opened | None = None) -> None:
        """`opened` is where an earlier reader of the same plan stopped."""
        self._plan, self._strategy = plan, strategy_of(plan)
        self._module = first_module(plan)
        self._layout = layout_of(self._module)
        self._opened = opened

    @property
    def opened(self) -> Opened:
        """What the newest version means. Raises InvalidInput before there is one."""
        if self._opened is None:
            raise InvalidInput("No version of the model was read yet.")
        return self._opened

    def read(self, version: RingArray, *, round_number: int) -> Opened:
        """The version after a round; 0 for the first one.

        Raises InvalidInput when it has another length than the plan's versions, or when versions are
        missing that the strategy needs.
        """
        expected = self._strategy.vectors * self._layout.parameters
        if version.shape != (expected,):
            raise InvalidInput(
                f"The version has shape {version.shape}, but those of this plan have ({expected},). Check "
                "that the study and all its nodes run the same version of Trefoil."
            )
        before = self._opened
        if self._strategy.reads_all_versions:
            following = 0 if before is None else before.round + 1
            if round_number != following:
                raise InvalidInput(
                    f"{self._plan.strategy.value} reads all versions in turn: version {following} comes "
                    f"before {round_number}."
                )
        decoded = decode_vector(version, scale_bits=self._plan.scale_bits)
        opened = self._strategy.open(before, decoded, self._layout)
        self._opened = Opened(round_number, opened.version, opened.weights, opened.shared, opened.moments)
        return self._opened

    def module(self) -> nn.Module:
        """The model with the weights of the newest version; the same object each time."""
        load_state_vector(self._module, self.opened.weights)
        return self._module


def read_versions(plan: TrainingPlan, versions: Iterable[RingArray], *, first: int = 0) -> Floats:
    """The weights that the last of `versions` means; they follow each other from number `first` on."""
    reader = Reader(plan)
    for number, version in enumerate(versions, start=first):
        reader.read(version, round_number=number)
    return reader.opened.weights
