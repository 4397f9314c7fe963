"""The ledgers and trails of a run, as tables on the screen and on the page."""

from __future__ import annotations

from rich.console import Console

from libs.cli.demo.records import Records
from libs.cli.output import make_table
from libs.cli.privacy_options import in_words

LEDGER_COLUMNS = ["hospital", ">#", "what", "consumer", "cost", ">round", ">predictions", "approval"]
TRAIL_COLUMNS = ["service", ">entries", ">signed", "verified"]


def ledger_rows(records: Records) -> list[list[str]]:
    """One row per entry, hospital by hospital."""
    return [
        [
            hospital,
            str(entry.sequence),
            entry.kind,
            entry.consumer.removeprefix("spiffe://trefoil.local/"),
            in_words(entry.cost),
            str(entry.round or ""),
            str(entry.count or ""),
            entry.approval_id,
        ]
        for hospital, ledger in records.ledgers.items()
        for entry in ledger.entries
    ]


def trail_rows(records: Records) -> list[list[str]]:
    """One row per service."""
    return [
        [
            service,
            str(report.entries),
            str(report.signed_sequence),
            "whole" if report.finding is None else "NOT WHOLE",
        ]
        for service, report in records.trails.items()
    ]


def print_records(console: Console, records: Records) -> None:
    """What was taken of whose data, and whether the trails are whole."""
    console.print(make_table(LEDGER_COLUMNS, ledger_rows(records), title="Privacy ledgers"))
    console.print(make_table(TRAIL_COLUMNS, trail_rows(records), title="Audit trails"))
