"""`trefoil audit`: what the services recorded, and whether the record is whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption

if TYPE_CHECKING:
    from libs.runtime.audit.checkpoint import Checkpoint
    from libs.runtime.audit.findings import Report

app = typer.Typer(help="Export, read and verify the audit trails of the services.", no_args_is_help=True)

_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_SOURCE_HELP = "Whose trail: coordinator, hospital, party-0, party-1 or party-2."

AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Where the service is; without it, by the profile and the coordinator.", show_default=False
    ),
]


@app.command()
def export(
    source: Annotated[str, typer.Option("--from", help=_SOURCE_HELP)],
    out: Annotated[Path, typer.Option(help="File to write, one JSON object a line; it must not exist.")],
    profile: ProfileOption,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a service's whole trail to a file, signed to its end (auditors, operators)."""
    from libs.cli.output import plain, print_json, remarks
    from libs.core.errors import AlreadyExists

    if out.exists():
        raise AlreadyExists(f"{out} exists already. Choose another name; exports are evidence.")
    lines = _fetched(profile, source, address)
    unfinished = out.with_name(f".{out.name}.unfinished")
    unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    unfinished.rename(out)
    if as_json:
        print_json({"file": str(out), "lines": len(lines)})
        return
    remarks().print(
        f"{len(lines)} lines in {plain(out)}. Check them: trefoil audit verify {plain(out)} --ca ca.crt"
    )


@app.command()
def show(
    file: Annotated[
        Path | None, typer.Argument(help="An exported trail; or ask a service, --from.", show_default=False)
    ] = None,
    source: Annotated[str | None, typer.Option("--from", help=_SOURCE_HELP, show_default=False)] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile", "-p", envvar="TREFOIL_PROFILE", help="Needed with --from.", show_default=False
        ),
    ] = None,
    address: AddressOption = None,
    action: Annotated[str, typer.Option(help="Only actions that contain this.")] = "",
    actor: Annotated[str, typer.Option(help="Only actors that contain this.")] = "",
    since: Annotated[
        str | None, typer.Option(help="Only from this moment on: 2026-11-24 or 2026-11-24T10:00Z.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """A trail as a table. It shows what is written, and does not verify it."""
    from libs.cli.output import print_json, print_table, short_identity

    entries = [
        entry
        for entry in _entries(_lines_of(file, source, profile, address))
        if action in entry["action"] and actor in entry["actor"] and _since(entry, since)
    ]
    if as_json:
        print_json(entries)
        return
    print_table(
        [">#", "at (UTC)", "!action", "by", "on", "details"],
        [
            [
                entry["sequence"],
                str(entry["at"])[:19].replace("T", " "),
                _action(entry),
                short_identity(entry["actor"]),
                short_identity(entry["object"]),
                _details(entry),
            ]
            for entry in entries
        ],
        if_empty="No entries. Try other filters.",
    )


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="An exported trail.")],
    ca: Annotated[Path, typer.Option(help="The federation's CA certificate (PEM).")],
    trail: Annotated[
        str | None,
        typer.Option(help="Whose trail it must be: an identity, spiffe://...", show_default=False),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="The hash of an entry that the trail must still hold.", show_default=False),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="An earlier export: the trail must go on from its last checkpoint.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Point at the first altered, missing, reordered or forged entry. Exit code 1 if there is one."""
    from libs.rpc.signing import checkpoint_check, read_authorities
    from libs.runtime.audit.verify import verify_trail

    known = None if checkpoint is None else _last_checkpoint(checkpoint)
    with file.open(encoding="utf-8", errors="replace") as lines:
        report = verify_trail(
            lines,
            check_signature=checkpoint_check(read_authorities(ca.read_bytes())),
            trail=trail,
            known_head=head,
            known_checkpoint=known,
        )
    _print_report(report, file, as_json=as_json)
    if report.finding is not None:
        raise typer.Exit(1)


def _print_report(report: Report, file: Path, *, as_json: bool) -> None:
    from libs.cli.output import plain, print_json, results

    finding = report.finding
    if as_json:
        problem = finding and {
            "problem": finding.problem.value,
            "sequence": finding.sequence,
            "line": finding.line,
            "text": finding.text,
        }
        print_json(
            {
                "whole": finding is None,
                "trail": report.trail,
                "good_entries": report.entries,
                "head_hash": report.head_hash,
                "checkpoints": report.checkpoints,
                "signed_entries": report.signed_sequence,
                "not_yet_signed": report.not_yet_signed,
                "finding": problem,
            }
        )
        return
    out = results()
    if finding is not None:
        out.print(f"[red]{plain(file)} is not whole.[/] {plain(finding.text)}")
        out.print(
            f"Up to there it is good: {report.entries} entries, {report.signed_sequence} of them signed."
        )
        return
    out.print(f"[green]Whole:[/] {report.entries} entries of {plain(report.trail)}, ", end="")
    out.print(f"{report.checkpoints} checkpoints. The last entry's hash is {report.head_hash}.")
    if report.not_yet_signed:
        out.print(
            f"{report.not_yet_signed} entries after entry {report.signed_sequence} are not yet signed: "
            "they could still be rewritten or cut off unnoticed."
        )


def _last_checkpoint(file: Path) -> Checkpoint:
    from libs.core.errors import InvalidInput
    from libs.runtime.audit.lines import CheckpointLine, parse_lines

    with file.open(encoding="utf-8", errors="replace") as lines:
        found = [line.checkpoint for line in parse_lines(lines) if isinstance(line, CheckpointLine)]
    if not found:
        raise InvalidInput(f"{file} holds no checkpoint. Give an earlier export of the same trail.")
    return found[-1]


def _lines_of(
    file: Path | None, source: str | None, profile: Path | None, address: str | None
) -> Iterable[str]:
    from libs.core.errors import InvalidInput

    if file is not None and source is None:
        return file.read_text(encoding="utf-8").splitlines()
    if source is not None and file is None and profile is not None:
        return _fetched(profile, source, address)
    raise InvalidInput("Name an exported file, or a service with --from and your --profile.")


def _fetched(profile: Path, source: str, address: str | None) -> list[str]:
    from libs.cli.client.audit import export_trail
    from libs.cli.client.session import open_session, run

    async def fetch() -> list[str]:
        async with open_session(profile) as session:
            return [line async for line in export_trail(session, source, address=address)]

    return run(fetch())


def _entries(lines: Iterable[str]) -> list[dict[str, Any]]:
    from libs.core.errors import InvalidInput
    from libs.runtime.audit.lines import EntryLine, UnreadableLine, parse_lines, read_line

    texts = list(lines)
    entries = []
    for line in parse_lines(texts):
        if isinstance(line, UnreadableLine):
            raise InvalidInput(f"Line {line.number} is not of a trail: {line.why}. See: trefoil audit verify")
        if isinstance(line, EntryLine):
            entries.append(read_line(texts[line.number - 1]))
    return entries


def _action(entry: dict[str, Any]) -> str:
    """What happened; what did not end well says so."""
    return str(entry["action"]) if entry["outcome"] == "done" else f"{entry['action']} ({entry['outcome']})"


def _details(entry: dict[str, Any]) -> str:
    """What is said, one a line, hashes shortened; an altered entry may hold anything there."""
    from libs.cli.output import short_identity

    details = entry["details"]
    if not isinstance(details, dict):
        return str(details)
    if entry["approval"]:
        details = {"approval": entry["approval"], **details}
    said = {name: short_identity(str(value)) for name, value in details.items() if value != ""}
    return "\n".join(f"{name} {_HASH.sub(_shortened, value)}" for name, value in said.items())


def _shortened(found: re.Match[str]) -> str:
    return f"{found[0][:12]}…"


def _since(entry: dict[str, Any], since: str | None) -> bool:
    from libs.core.errors import InvalidInput
    from libs.runtime.audit.entry import moment_text

    if since is None:
        return True
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise InvalidInput(f"--since {since!r} is not a moment; write 2026-11-24 or an ISO time.") from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return bool(entry["at"] >= moment_text(moment))
