"""`trefoil predict IMAGE...`: a clinic asks the model without showing it the X-ray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption
from libs.data.result_form import ResultForm

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from libs.cli.client.predictions import Prediction
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2


def predict(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Chest X-rays: DICOM, JPEG or PNG.")
    ],
    profile: ProfileOption,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model id or name; without it, the only one there is.")
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="PNEUMONIA from this probability on. The demo's tables use one chosen on validation images.",
        ),
    ] = 0.5,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Images per question.")] = 32,
    dicom_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the answer as DICOM into the study of the image, which is one DICOM file then. "
            "For research, not for clinical use.",
        ),
    ] = None,
    dicom_form: Annotated[
        ResultForm,
        typer.Option(help="An image with the answer as text below it, or a structured report."),
    ] = ResultForm.CAPTURE,
    as_json: JsonOption = False,
) -> None:
    """Ask a model about X-rays; only you see the images and the answers."""
    from libs.cli.client.session import run
    from libs.cli.output import print_json

    if dicom_out is not None:
        _check_result(images, dicom_out)
    chosen, predictions = run(_ask(profile, images, model, batch))
    rows = _rows(images, predictions, threshold)
    if dicom_out is not None:
        _write_result(images[0], dicom_out, chosen, rows[0], threshold=threshold, form=dicom_form)
    if as_json:
        answered = sum(prediction.latency_s for prediction in predictions)
        views = [_prediction_view(prediction) for prediction in predictions]
        print_json({"model_id": chosen.model_id, "latency_s": answered, "images": rows, "questions": views})
        return
    _print(chosen, rows, predictions)


async def _ask(
    profile: Path, paths: list[Path], wanted: str | None, batch: int
) -> tuple[coordinator_pb2.Model, list[Prediction]]:
    import numpy as np

    from libs.cli.client.models import choose_model
    from libs.cli.client.predictions import answer_prediction, open_prediction
    from libs.cli.client.session import open_session
    from libs.data.transforms import to_model_input

    for path in paths:
        _read(path, size=64)  # every file is checked before the first question is opened
    predictions = []
    async with open_session(profile) as session:
        model = await choose_model(session, wanted)
        for start in range(0, len(paths), batch):
            chunk = paths[start : start + batch]
            opened = await open_prediction(session, model_id=model.model_id, batch=len(chunk))
            side = opened.plan.input_shape[1]
            images = to_model_input(np.stack([_read(path, size=side) for path in chunk])).numpy()
            predictions.append(await answer_prediction(session, opened, images=images))
    return model, predictions


def _read(path: Path, *, size: int) -> npt.NDArray[np.uint8]:
    """The image; an error names the file, for this is the screen of the person it belongs to."""
    from libs.core.errors import CallerError, InvalidInput
    from libs.data.dicom_file import is_dicom
    from libs.data.dicom_image import load_dicom
    from libs.data.images import load_image

    if not path.is_file():
        raise InvalidInput(f"There is no image {path}. Check the path.")
    try:
        return load_dicom(path, size=size).pixels if is_dicom(path) else load_image(path, size=size)
    except CallerError as error:
        raise type(error)(f"{path}: {error}") from error


def _check_result(images: list[Path], path: Path) -> None:
    """Before a question is asked, which costs something, that its answer can be written."""
    from libs.core.errors import InvalidInput
    from libs.data.dicom_result import check_source

    if len(images) != 1:
        raise InvalidInput("A DICOM result is about one image. Give one with --dicom-out.")
    if images[0].is_file():  # a missing one is named later
        check_source(images[0], path)


def _write_result(
    image: Path,
    path: Path,
    model: coordinator_pb2.Model,
    row: dict[str, Any],
    *,
    threshold: float,
    form: ResultForm,
) -> None:
    from importlib.metadata import version

    from libs.core.clock import SystemClock
    from libs.data.dicom_result import Answer, write_result

    answer = Answer(
        probability=row["probability"],
        threshold=threshold,
        label=row["label"],
        model_id=model.model_id,
        plan_hash=model.plan_hash,
        version=version("trefoil"),
    )
    write_result(image, path, answer, form=form, now=SystemClock().now())
    row["dicom"] = str(path)


def _rows(paths: list[Path], predictions: list[Prediction], threshold: float) -> list[dict[str, Any]]:
    import numpy as np

    from libs.data.imageset import CLASS_NAMES, POSITIVE
    from libs.fl.evaluation import probabilities_of

    probabilities = probabilities_of(np.concatenate([prediction.logits for prediction in predictions]))
    return [
        {
            "image": str(path),
            "probability": round(float(probability), 4),
            "label": CLASS_NAMES[POSITIVE if probability >= threshold else 1 - POSITIVE],
        }
        for path, probability in zip(paths, probabilities, strict=True)
    ]


def _prediction_view(prediction: Prediction) -> dict[str, Any]:
    return {
        "computation_id": prediction.computation_id,
        "images": len(prediction.logits),
        "latency_s": prediction.latency_s,
        "dealer": prediction.dealer,
        "evaluators": [vars(evaluator) for evaluator in prediction.evaluators],
    }


def _print(model: coordinator_pb2.Model, rows: list[dict[str, Any]], predictions: list[Prediction]) -> None:
    from libs.cli.output import human_seconds, plain, print_table, results
    from libs.cli.who_saw_what import print_who_saw_what

    print_table(
        ["image", ">probability of pneumonia", "label"],
        [[row["image"], f"{row['probability']:.1%}", row["label"]] for row in rows],
        if_empty="No image was given.",
    )
    total = sum(prediction.latency_s for prediction in predictions)
    online = sum(max(evaluator.online_s for evaluator in p.evaluators) for p in predictions)
    results().print(
        f"{len(rows)} image(s) in {human_seconds(total)}, of which {human_seconds(online)} was computing on "
        f"shares. Model {plain(model.model_id)}. Not a medical device: research use only.\n"
    )
    print_who_saw_what(predictions)
