"""Prints a report: JSON for machines, a table for people."""

from __future__ import annotations

from libs.cli.bench.figures import Report, report_rows
from libs.cli.output import print_json, print_table


def show(report: Report, *, title: str, as_json: bool) -> None:
    """On stdout."""
    if as_json:
        print_json(report)
        return
    link = report["link"]
    if link is not None:
        limit = f", {link['bandwidth_mbps']:g} Mbit/s" if link["bandwidth_mbps"] else ""
        title += f", {link['latency_ms']:g} ms round trip{limit}"
    title += f", median of {report['repeat']}"
    print_table(["", ">"], report_rows(report), title=title, if_empty="")
    machine = report["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average_1min']}")
