"""The base of what plans are made of: frozen, without unknown keys, and with errors for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from libs.core.errors import InvalidInput


class Frozen(BaseModel):
    """Values that were checked once and never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=False)

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """These values, checked. Raises InvalidInput naming every wrong one, where the constructor raises
        pydantic's error.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise invalid_plan(error) from None


def invalid_plan(error: ValidationError) -> InvalidInput:
    """What is wrong with a plan, field by field, without the values."""
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'plan'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)
    )
    return InvalidInput(f"The training plan is not valid ({problems}). Correct it and send it again.")
