"""`trefoil model`: the models that can be asked, and bringing one of your own."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption

if TYPE_CHECKING:
    import torch
    from torch import nn

    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
    from libs.rpc._generated.trefoil.types.v1 import types_pb2

HOSPITALS_DECIDE = (
    "Each hospital that a model was made at may allow more or fewer, and tells the three parties alone. Ask "
    "the hospitals: trefoil request create --purpose prediction"
)

app = typer.Typer(help="List models; import one that was trained elsewhere.", no_args_is_help=True)


@app.command("list")
def list_all(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """The models that can be asked."""
    from libs.cli.client.catalogue import list_models
    from libs.cli.client.session import open_session, run
    from libs.cli.output import print_json, print_table

    async def ask() -> list[coordinator_pb2.Model]:
        async with open_session(profile) as session:
            return await list_models(session)

    models = [_view(model) for model in run(ask())]
    if as_json:
        print_json(models)
        return
    print_table(
        ["model", "name", "owner", "created", "may ask", "plan"],
        [
            [
                m["model_id"],
                m["name"],
                m["owner"],
                f"{m['created_at']:%Y-%m-%d %H:%M}",
                _in_words(m["may_ask"]),
                f"{m['plan_hash'][:12]}…",
            ]
            for m in models
        ],
        if_empty="There is no model yet. Train one: trefoil study create --tag chest-x-ray",
    )


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="Its id or name.")],
    profile: ProfileOption,
    as_json: JsonOption = False,
) -> None:
    """One model, and who may ask it as far as the coordinator knows."""
    from libs.cli.client.models import choose_model
    from libs.cli.client.session import open_session, run
    from libs.cli.output import plain, print_json, results

    async def ask() -> coordinator_pb2.Model:
        async with open_session(profile) as session:
            return await choose_model(session, model)

    view = _view(run(ask()))
    if as_json:
        print_json(view)
        return
    for label, value in {
        "model": view["model_id"],
        "name": view["name"],
        "owner": view["owner"],
        "created": f"{view['created_at']:%Y-%m-%d %H:%M}",
        "ready": "yes" if view["ready"] else "not dealt yet",
        "plan": view["plan_hash"],
        "may ask": _in_words(view["may_ask"]),
    }.items():
        results().print(f"{label:<8} {plain(str(value))}")
    results().print(HOSPITALS_DECIDE, style="dim")


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Name for the model.")],
    weights: Annotated[Path, typer.Argument(help="Its weights (.safetensors, the module's state_dict).")],
    calibration: Annotated[
        Path, typer.Argument(help="Images like those it will see (folder or .npz); they stay here.")
    ],
    profile: ProfileOption,
    model: Annotated[str, typer.Option(help="small_cnn, medium_cnn or resnet18.")] = "small_cnn",
    image_size: Annotated[int, typer.Option(min=8, max=1024, help="Pixels a side.")] = 28,
    ask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IDENTITY",
            help="Who may ask the model besides you: spiffe://trefoil.local/client/NAME; repeat for more.",
        ),
    ] = None,
    ask_anyone: Annotated[
        bool, typer.Option("--ask-anyone", help="Every client of the federation may ask the model.")
    ] = False,
    max_predictions: Annotated[
        int, typer.Option(min=0, help="Images that all others together may ask about; 0 for any number.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compile a model and deal its weights to the parties as shares (scientists)."""
    from libs.cli.client.models import import_model
    from libs.cli.client.session import open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.data.dataset import load_dataset
    from libs.data.transforms import to_model_input

    use = _use(ask or [], anyone=ask_anyone, max_predictions=max_predictions)
    module = _load_module(model, weights, image_size)
    images = to_model_input(load_dataset(calibration, size=image_size).images)

    async def bring() -> coordinator_pb2.Model:
        async with open_session(profile) as session:
            return await import_model(session, name=name, module=module, calibration=_spread(images), use=use)

    imported = run(bring())
    if as_json:
        print_json(_view(imported))
    else:
        results().print(f"Imported. Ask it: trefoil predict IMAGE --model {plain(imported.model_id)}")


def _use(askers: list[str], *, anyone: bool, max_predictions: int) -> types_pb2.ModelUse:
    from libs.core.errors import InvalidInput
    from libs.rpc._generated.trefoil.types.v1 import types_pb2
    from libs.rpc.identity import Identity

    if anyone and askers:
        raise InvalidInput("--ask-anyone lets every client ask; leave --ask out, or name clients only.")
    for asker in askers:
        Identity.parse(asker)
    return types_pb2.ModelUse(anyone=anyone, asker_identities=askers, max_predictions=max_predictions)


def _load_module(model: str, weights: Path, image_size: int) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from libs.core.errors import InvalidInput
    from libs.models.registry import build_model

    if not weights.is_file():
        raise InvalidInput(f"There is no file {weights} with weights. Check the path.")
    module = build_model(model, channels=1, classes=2, size=image_size, seed=0)
    try:
        module.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise InvalidInput(
            f"{weights} does not hold the weights of {model} for {image_size} pixels: {error}. "
            "Check --model and --image-size."
        ) from error
    return module


def _spread(images: torch.Tensor, *, most: int = 256) -> torch.Tensor:
    """At most `most` images, evenly from all of them (class folders come one after the other)."""
    return images[:: max(1, len(images) // most)][:most]


def _view(model: coordinator_pb2.Model) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "name": model.name,
        "owner": model.owner,
        "ready": model.ready,
        "created_at": model.created_at.ToDatetime(tzinfo=UTC),
        "plan_hash": model.plan_hash,
        "may_ask": {
            "anyone": model.use.anyone,
            "identities": list(model.use.asker_identities),
            "max_predictions": model.use.max_predictions,
        },
    }


def _in_words(may_ask: dict[str, Any]) -> str:
    """Who may ask, and how often, as one cell of a table."""
    names = ", ".join(uri.rpartition("/")[2] for uri in may_ask["identities"])
    who = "anyone" if may_ask["anyone"] else names or "its owner"
    return f"{who}, {may_ask['max_predictions']} images" if may_ask["max_predictions"] else who
