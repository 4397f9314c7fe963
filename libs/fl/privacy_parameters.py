"""What a plan says about differential privacy."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from libs.dp.accountant import Accountant
from libs.dp.events import LEAST_NOISE, MOST_NOISE
from libs.fl.frozen import Frozen


class PrivacyUnit(StrEnum):
    """What neighbouring data sets differ by: whose presence stays hidden."""

    RECORD = "record"
    """One image: every hospital adds noise to what it sends (DP-SGD)."""
    HOSPITAL = "hospital"
    """All that a hospital contributes: the parties add noise to the sum, each its own part."""


class PrivacyParameters(Frozen):
    """What the whole study may cost, and by whose noise. A record is one image of the training part.

    The clipping norm and the views belong to records; with hospitals, `contribution_check.max_norm` clips.
    """

    target_epsilon: float = Field(gt=0, le=1000, description="the most that the study may cost a hospital")
    delta: float = Field(gt=0, le=0.01, description="far below one in the number of records")
    noise_multiplier: float | None = Field(
        default=None,
        ge=LEAST_NOISE,
        le=MOST_NOISE,
        description="without it, each hospital takes the least noise that keeps it within the target",
    )
    max_grad_norm: float = Field(
        default=1.0, gt=0, le=1e6, description="L2 norm to which each record's gradient is clipped"
    )
    views: int = Field(
        default=4,
        ge=1,
        le=64,
        description="augmented copies of a record whose mean gradient is clipped; without augmentation, one",
    )
    unit: PrivacyUnit = PrivacyUnit.RECORD
    largest_weight: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="with unit hospital: a hospital that would count for more in a round sends nothing",
    )
    accountant: Accountant = Field(
        default=Accountant.PRV, description="by which proof noise is planned and the ledger pays"
    )
