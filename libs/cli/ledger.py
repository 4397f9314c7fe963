"""`trefoil ledger`: what was taken of a hospital's data, in privacy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1 import access_pb2

app = typer.Typer(help="Read the privacy ledger.", no_args_is_help=True)


@app.callback()
def _ledger() -> None:
    """Keeps `show` a command of its own."""


@app.command()
def show(
    profile: ProfileOption,
    dataset: Annotated[str, typer.Option(help="Only this data set.")] = "",
    consumer: Annotated[str, typer.Option(help="Only this consumer, as it stands in the ledger.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Budgets, what is left of them, and every entry (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import human_moment, print_json, print_table, short_identity
    from libs.cli.privacy_options import in_words
    from libs.cli.request_views import balance_view, entry_view

    entries, balances = consent.read_ledger(profile, dataset=dataset, consumer=consumer)
    if as_json:
        print_json(
            {
                "balances": [balance_view(balance) for balance in balances],
                "entries": [entry_view(entry) for entry in entries],
            }
        )
        return
    print_table(
        ["data set", "budget", "spent", "left"],
        [[b.dataset_name, in_words(b.budget), in_words(b.spent), in_words(b.left)] for b in balances],
        title="Budgets",
        if_empty="No data set has a budget. Set one: trefoil dataset budget NAME --epsilon 8 --delta 1e-4",
    )
    print_table(
        [">#", "when", "what", "data set", "consumer", "cost", "about", "approval"],
        [
            [
                entry.sequence,
                human_moment(entry.at.ToDatetime()),
                entry.kind,
                entry.dataset_name,
                short_identity(entry.consumer),
                in_words(entry.cost),
                _about(entry),
                entry.approval_id,
            ]
            for entry in entries
        ],
        title="Ledger",
        if_empty="Nothing was taken yet.",
    )


def _about(entry: access_pb2.LedgerEntry) -> str:
    """The study and its round, or how many predictions."""
    said = (
        entry.study_id,
        entry.round and f"round {entry.round}",
        entry.count and f"{entry.count} predictions",
    )
    return ", ".join(part for part in said if part)
