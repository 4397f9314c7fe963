"""How epsilon and delta are given on the command line: decimals, or `--without-privacy` in so many words."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost

EpsilonOption = Annotated[
    str, typer.Option(help="Decimal number; the smaller, the more private.", show_default=False)
]
DeltaOption = Annotated[
    str, typer.Option(help="Decimal number far below one in the images.", show_default="0")
]
WithoutPrivacyOption = Annotated[
    bool, typer.Option("--without-privacy", help="Without differential privacy: no noise at all.")
]


def privacy_cost(*, epsilon: str, delta: str, without_privacy: bool) -> PrivacyCost | None:
    """What the options say; None when they say nothing. InvalidInput when they contradict each other."""
    from libs.core.errors import InvalidInput
    from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost

    if without_privacy:
        if epsilon or delta:
            raise InvalidInput("Give either --epsilon and --delta, or --without-privacy.")
        return PrivacyCost(epsilon="inf", delta="0")
    if not epsilon:
        if delta:
            raise InvalidInput("A --delta needs its --epsilon.")
        return None
    return PrivacyCost(epsilon=decimal_text(epsilon), delta=decimal_text(delta or "0"))


def decimal_text(text: str) -> str:
    """Without an exponent: 1e-5 is 0.00001. InvalidInput for anything that is no decimal number."""
    from libs.core.errors import InvalidInput

    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite() or value < 0 or abs(value.adjusted()) > 18:
        raise InvalidInput(f"{text!r} is not a number like 2 or 0.00001.")
    return format(value, "f")


def in_words(cost: PrivacyCost) -> str:
    """For tables."""
    if cost.epsilon == "inf":
        return "without privacy"
    return f"ε {cost.epsilon or '0'}" + (f", δ {cost.delta}" if cost.delta not in ("", "0") else "")
