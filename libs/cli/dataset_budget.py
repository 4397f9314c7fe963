"""`trefoil dataset budget`: what may be taken of a data set's privacy."""

from __future__ import annotations

from typing import Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption
from libs.cli.privacy_options import DeltaOption, EpsilonOption, WithoutPrivacyOption


def budget(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    profile: ProfileOption,
    epsilon: EpsilonOption = "",
    delta: DeltaOption = "",
    without_privacy: WithoutPrivacyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set what may be taken of a data set's privacy altogether, counting what was taken already (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import plain, print_json, results
    from libs.cli.privacy_options import in_words, privacy_cost
    from libs.cli.request_views import balance_view
    from libs.core.errors import InvalidInput

    allowed = privacy_cost(epsilon=epsilon, delta=delta, without_privacy=without_privacy)
    if allowed is None:
        raise InvalidInput("Give a budget: --epsilon 8 --delta 1e-4, or --without-privacy.")
    balance = consent.set_budget(profile, name, allowed)
    if as_json:
        print_json(balance_view(balance))
        return
    results().print(
        f"Of [bold]{plain(name)}[/] may be taken: {in_words(balance.budget)}. Spent so far: "
        f"{in_words(balance.spent)}; left: {in_words(balance.left)}."
    )
