"""`trefoil statistics`: counts of one's own hospital's data sets, with noise."""

from __future__ import annotations

from typing import Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption

app = typer.Typer(help="Ask for counts with noise, and release them.", no_args_is_help=True)

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="A data set of this hospital.")]


@app.command()
def ask(
    dataset: DatasetArgument,
    profile: ProfileOption,
    epsilon: Annotated[str, typer.Option(help="For all uses together; the smaller, the more noise.")],
    uses: Annotated[int, typer.Option(min=1, help="How many times.")] = 1,
    reason: Annotated[str, typer.Option(help="What it is for: the owner reads this first.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Ask the owner for statistics of a data set (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import plain, print_json, results
    from libs.cli.privacy_options import decimal_text
    from libs.cli.request_views import request_view

    asked = consent.ask_for_statistics(
        profile, dataset, epsilon=decimal_text(epsilon), uses=uses, reason=reason
    )
    if as_json:
        print_json(request_view(asked))
    elif asked.HasField("approval"):
        results().print(f"Approved by a rule, as [bold]{plain(asked.approval.approval_id)}[/].")
    else:
        results().print(f"Asked as [bold]{plain(asked.request_id)}[/]. The owner decides.")


@app.command()
def release(
    dataset: DatasetArgument,
    profile: ProfileOption,
    approval: Annotated[str, typer.Option(help="The approval to be used.")],
    epsilon: Annotated[str, typer.Option(help="What to spend on this release.")],
    call_id: Annotated[
        str, typer.Option("--call", help="The same id gives the same counts again.", show_default="new")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Images of each class, with noise, paid for from approval and budget (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import print_json, print_table, remarks
    from libs.cli.privacy_options import decimal_text, in_words
    from libs.cli.request_views import cost_view

    found = consent.release_statistics(
        profile, dataset, approval_id=approval, epsilon=decimal_text(epsilon), call_id=call_id
    )
    if as_json:
        print_json(
            {
                "noisy_counts": dict(found.noisy_counts),
                "spent": cost_view(found.spent),
                "noise_deviation": found.noise_deviation,
            }
        )
        return
    print_table(
        ["class", ">images, with noise"],
        sorted(found.noisy_counts.items()),
        if_empty="The data set has no classes.",
    )
    remarks().print(f"Noise of ±{found.noise_deviation:.1f} on each; spent {in_words(found.spent)}.")
