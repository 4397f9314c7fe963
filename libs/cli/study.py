"""`trefoil study`: scientists create and watch studies. What owners say to them is in `request.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption
from libs.cli.study_weights import weights

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

app = typer.Typer(help="Create, watch and cancel studies.", no_args_is_help=True)
app.command("weights")(weights)

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="The study's id.")]


# ---------------------------------------------------------------- scientists


@app.command()
def create(
    profile: ProfileOption,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", "-t", help="Use every data set with these tags; repeat for more."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Use this data set (hospital/name); repeat for more."),
    ] = None,
    title: Annotated[str, typer.Option(help="One line that owners read first.")] = "Pneumonia detector",
    plan: Annotated[
        Path | None, typer.Option(help="Training plan (JSON); without it, the default for the model.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="small_cnn, small_cnn_private, medium_cnn or resnet18; not with --plan.",
            show_default="small_cnn; small_cnn_private with --epsilon",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, max=1024, help="Pixels a side; not with --plan.", show_default="28"),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Training rounds; not with --plan.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed of the first weights and of all training; not with --plan.", show_default="0"
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="Train with noise; the study costs no image more than this epsilon. Not with --plan."
        ),
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="With --epsilon; far below one in the images.", show_default="1e-5")
    ] = None,
    max_grad_norm: Annotated[
        float | None,
        typer.Option(help="With --epsilon; to which each image's gradient is clipped.", show_default="1"),
    ] = None,
    askers: Annotated[
        list[str] | None,
        typer.Option(
            "--ask",
            metavar="IDENTITY",
            help="Who may ask the model besides you: spiffe://trefoil.local/client/NAME; repeat for more.",
        ),
    ] = None,
    ask_anyone: Annotated[
        bool, typer.Option("--ask-anyone", help="Every client of the federation may ask the model.")
    ] = False,
    no_download: Annotated[
        bool, typer.Option("--no-download", help="Nobody may fetch the weights in clear, not even you.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Stay and show the progress.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Create a study, deal its first weights to the three parties, and ask the owners."""
    from libs.cli.client.catalogue import search_datasets
    from libs.cli.client.session import open_session, run
    from libs.cli.client.studies import create_and_start
    from libs.cli.output import plain, print_json, remarks
    from libs.cli.study_plan import PlanChoices
    from libs.cli.study_views import view
    from libs.core.errors import InvalidInput, NotFound
    from libs.fl.strategies.withheld import counted

    if not tag and not dataset:
        raise InvalidInput("Name data sets with --dataset, or find them with --tag.")
    choices = PlanChoices(
        model=model,
        image_size=image_size,
        rounds=rounds,
        seed=seed,
        epsilon=epsilon,
        delta=delta,
        max_grad_norm=max_grad_norm,
        ask=tuple(askers) if askers else None,
        ask_anyone=ask_anyone or None,
        no_download=no_download or None,
    )
    plan_for = choices.default_plan(tag or []) if plan is None else choices.plan_in(plan)

    async def ask() -> coordinator_pb2.Study:
        async with open_session(profile) as session:
            found = await search_datasets(session, tags=tag or [])
            chosen = [d for d in found if not dataset or d.dataset_id in dataset]
            missing = sorted(set(dataset or []) - {d.dataset_id for d in chosen})
            if missing or not chosen:
                wanted = ", ".join(missing) or f"with the tags {', '.join(tag or [])}"
                raise NotFound(f"No data set {wanted}. See what there is: trefoil dataset search")
            agreed = plan_for(sum(counted({d.dataset_id: d.images for d in chosen}).values()))
            return await create_and_start(
                session, plan=agreed, title=title, dataset_ids=[d.dataset_id for d in chosen]
            )

    study = run(ask())
    if as_json and not watch:
        print_json(view(study))
        return
    remarks().print(
        f"Created study [bold]{plain(study.study_id)}[/] (plan {plain(study.plan_hash[:12])}…). "
        f"Each owner now decides: trefoil request approve {plain(study.study_id)}"
    )
    if watch:
        _watch(profile, study.study_id, as_json=as_json)


@app.command("list")
def list_all(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """All studies and how far they are."""
    from libs.cli.client.catalogue import list_studies
    from libs.cli.client.session import open_session, run
    from libs.cli.client.studies import STATE_NAMES
    from libs.cli.output import print_json, print_table
    from libs.cli.study_views import view

    async def ask() -> list[coordinator_pb2.Study]:
        async with open_session(profile) as session:
            return await list_studies(session)

    studies = run(ask())
    if as_json:
        print_json([view(study) for study in studies])
        return
    print_table(
        ["study", "title", "state", ">rounds", ">hospitals", "model"],
        [
            [
                study.study_id,
                study.title,
                STATE_NAMES.get(study.state, "?"),
                f"{study.rounds_done}/{study.rounds_planned}",
                len(study.members),
                study.released_model_id,
            ]
            for study in studies
        ],
        if_empty="There are no studies. Create one: trefoil study create --tag chest-x-ray",
    )


@app.command()
def show(study: StudyArgument, profile: ProfileOption, as_json: JsonOption = False) -> None:
    """One study: plan, hospitals and rounds."""
    from libs.cli.client.session import open_session, run
    from libs.cli.client.studies import get_study
    from libs.cli.output import print_json
    from libs.cli.study_views import print_study, view

    async def ask() -> coordinator_pb2.Study:
        async with open_session(profile) as session:
            return await get_study(session, study)

    found = run(ask())
    if as_json:
        print_json(view(found))
    else:
        print_study(found)


@app.command()
def watch(study: StudyArgument, profile: ProfileOption, as_json: JsonOption = False) -> None:
    """Show the progress until the study ends."""
    _watch(profile, study, as_json=as_json)


@app.command()
def cancel(study: StudyArgument, profile: ProfileOption, as_json: JsonOption = False) -> None:
    """Stop a study. Its training versions remain at the parties; no model is released."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.cli.study_views import view
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

    async def ask() -> coordinator_pb2.Study:
        async with open_session(profile) as session:
            request = coordinator_pb2.CancelStudyRequest(study_id=study)
            return (await session.coordinator.CancelStudy(request, timeout=CALL_TIMEOUT_S)).study

    cancelled = run(ask())
    if as_json:
        print_json(view(cancelled))
    else:
        results().print(f"Cancelled [bold]{plain(cancelled.study_id)}[/].")


def _watch(profile: Path, study_id: str, *, as_json: bool) -> None:
    from libs.cli.client.session import open_session, run
    from libs.cli.client.studies import require_ready, watch
    from libs.cli.output import plain, print_json, remarks, results
    from libs.cli.study_progress import StudyProgress
    from libs.cli.study_views import view

    async def ask() -> coordinator_pb2.Study:
        async with open_session(profile) as session:
            return await StudyProgress(remarks()).follow(watch(session, study_id))

    study = run(ask())
    if as_json:
        print_json(view(study))
    require_ready(study)
    if not as_json:
        results().print(f"Ready. Ask it: trefoil predict IMAGE --model {plain(study.released_model_id)}")
