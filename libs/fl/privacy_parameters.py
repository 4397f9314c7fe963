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


class PrivacyParameters(Frozen):
    """DP-SGD at every hospital, planned for the whole study. A record is one image of the training part."""

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
    accountant: Accountant = Field(
        default=Accountant.PRV, description="by which proof noise is planned and the ledger pays"
    )
