"""`trefoil`: one program, one noun per file.

Only Typer is imported here and at the top of the nouns; a command imports the heavy libraries it needs when
it runs, so `trefoil --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from libs.cli import (
    audit,
    coordinator,
    dataset,
    demo_command,
    group,
    hospital,
    keys,
    ledger,
    login,
    model,
    node,
    party,
    predict,
    request,
    role,
    rule,
    staff_session,
    statistics,
    study,
    user,
)
from libs.cli.attack import command as attack
from libs.cli.bench import command as bench
from libs.cli.evaluate import command as evaluate
from libs.cli.failures import run_and_exit

app = typer.Typer(
    name="trefoil",
    help="Hospitals train one pneumonia detector on X-rays that never leave them; a clinic asks it without "
    "showing the X-ray.",
    epilog="Try it on this machine: trefoil demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TRY = "Try it"
_USE = "Train and predict"
_OWN = "Hospital staff"
_RUN = "Operators"

app.command("demo", rich_help_panel=_TRY)(demo_command.demo)
app.command("evaluate", rich_help_panel=_TRY)(evaluate.evaluate)
app.add_typer(bench.app, name="bench", rich_help_panel=_TRY)
app.add_typer(attack.app, name="attack", rich_help_panel=_TRY)
app.add_typer(dataset.app, name="dataset", rich_help_panel=_USE)
app.add_typer(request.app, name="request", rich_help_panel=_USE)
app.add_typer(study.app, name="study", rich_help_panel=_USE)
app.add_typer(model.app, name="model", rich_help_panel=_USE)
app.command("predict", rich_help_panel=_USE)(predict.predict)
app.add_typer(hospital.app, name="hospital", rich_help_panel=_OWN)
app.add_typer(rule.app, name="rule", rich_help_panel=_OWN)
app.add_typer(ledger.app, name="ledger", rich_help_panel=_OWN)
app.add_typer(statistics.app, name="statistics", rich_help_panel=_OWN)
app.command("login", rich_help_panel=_OWN)(login.login)
app.command("logout", rich_help_panel=_OWN)(login.logout)
app.add_typer(staff_session.app, name="session", rich_help_panel=_OWN)
app.add_typer(user.app, name="user", rich_help_panel=_OWN)
app.add_typer(role.app, name="role", rich_help_panel=_OWN)
app.add_typer(group.app, name="group", rich_help_panel=_OWN)
app.add_typer(audit.app, name="audit", rich_help_panel=_OWN)
app.add_typer(keys.app, name="keys", rich_help_panel=_RUN)
app.add_typer(node.app, name="node", rich_help_panel=_RUN)
app.add_typer(coordinator.app, name="coordinator", rich_help_panel=_RUN)
app.add_typer(party.app, name="party", rich_help_panel=_RUN)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the `trefoil` command; leaves with an exit code of `libs/cli/failures.py`."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    run_and_exit(lambda: app(argv, prog_name="trefoil", standalone_mode=False), as_json="--json" in argv)


if __name__ == "__main__":
    main()
