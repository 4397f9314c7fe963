"""`trefoil study weights`: the weights after any round, in clear, for those whom the plan lets read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from libs.fl.training_plan import TrainingPlan


def weights(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's id.")],
    out: Annotated[Path, typer.Argument(help="File to write (.safetensors); it must not exist.")],
    profile: ProfileOption,
    round_number: Annotated[
        int | None,
        typer.Option(
            "--round",
            min=0,
            help="The version after this round; 0 is the one that training began with.",
            show_default="the one that is released, or the newest",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a version of the weights in clear, if the plan lets you; every round's is kept."""
    from libs.cli.client.session import open_session, run
    from libs.cli.client.studies import fetch_weights, get_study
    from libs.cli.output import plain, print_json, results
    from libs.core.errors import InvalidInput
    from libs.fl.training_plan import TrainingPlan

    if out.exists():
        raise InvalidInput(f"{out} exists already. Name another file.")
    if not out.parent.is_dir():
        raise InvalidInput(f"There is no folder {out.parent}. Make it, or name another file.")

    async def ask() -> tuple[TrainingPlan, int, npt.NDArray[np.float64]]:
        async with open_session(profile) as session:
            found = await get_study(session, study)
            number = (found.final_round or found.rounds_done) if round_number is None else round_number
            if number > found.rounds_done:
                raise InvalidInput(f"The study has {found.rounds_done} rounds done, so no version {number}.")
            plan = TrainingPlan.from_json(found.training_plan)
            model_id = f"{found.study_id}/round-{number}"
            return plan, number, await fetch_weights(session, model_id=model_id, plan=plan)

    plan, number, vector = run(ask())
    _write(out, plan, vector)
    if as_json:
        print_json({"study_id": study, "round": number, "model": plan.model, "file": str(out)})
    else:
        results().print(f"Weights of {plain(plan.model)} after round {number}: {plain(out)}")


def _write(out: Path, plan: TrainingPlan, vector: npt.NDArray[np.float64]) -> None:
    """As a state_dict, for its owner alone."""
    import os

    from safetensors.torch import save

    from libs.fl.vectorise import load_state_vector
    from libs.fl.versions import first_module

    module = first_module(plan)
    load_state_vector(module, vector)
    with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(save(module.state_dict()))
