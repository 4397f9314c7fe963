"""The page of a run: one HTML file without scripts, fonts or pictures from elsewhere.

Its prose is in page.html.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from libs.cli.demo.asking import Asked
from libs.cli.demo.baselines import CENTRALISED, Baseline
from libs.cli.demo.charts import roc_chart, training_chart
from libs.cli.demo.figures import Figures
from libs.cli.demo.journey import Trained
from libs.cli.demo.material import Material
from libs.cli.demo.record_tables import LEDGER_COLUMNS, TRAIL_COLUMNS, ledger_rows, trail_rows
from libs.cli.demo.records import Records
from libs.cli.demo.tables import COLUMNS, agreement_text, cost_rows, quality_rows
from libs.cli.drawing import style_sheet
from libs.cli.output import human_seconds
from libs.cli.who_saw_what import who_saw_what
from libs.data.imageset import CLASS_NAMES, ImageSet
from libs.fl.training_plan import TrainingPlan

SAMPLES = 8
_SHOWN_PIXELS = 224


def build_page(
    *,
    plan: TrainingPlan,
    material: Material,
    trained: Trained,
    asked: Asked,
    baselines: dict[str, Baseline],
    figures: Figures,
    records: Records,
    seconds: dict[str, float],
    summary: dict[str, Any],
) -> str:
    """The whole page as HTML. Everything that comes from data or wire is escaped."""
    data = summary["data"]
    skew = f", divided unevenly (Dirichlet {data['skew']:g})" if data["skew"] is not None else ""
    samples = choose_samples(material.test.labels, count=SAMPLES, seed=plan.seed)
    texts = {
        "hospitals": len(material.parts),
        "train_images": material.train_images,
        "test_images": len(material.test),
        "data": f"{material.source}, {data['image_size']} by {data['image_size']} pixels{skew}",
        "created_at": summary["created_at"],
        "study_id": summary["measured"]["study_id"],
        "agreement": agreement_text(figures, asked),
        "sample_count": len(samples),
        "plan_hash": plan.hash[:16],
        "model": plan.model,
        "rounds": plan.rounds,
        "local_epochs": plan.local_epochs,
        "seed": plan.seed,
        "volatile": ", ".join(summary["volatile"]),
    }
    costs = cost_rows(seconds=seconds, trained=trained, asked=asked, plan=plan)
    markup = {
        "style": style_sheet(),
        "tiles": _tiles(figures, asked),
        "quality_head": _head(COLUMNS),
        "quality_rows": _rows(quality_rows(figures), marked="federated"),
        "roc": _roc(material.test, baselines, figures),
        "training": _training(trained),
        "samples": "".join(_sample(material.test, figures, index) for index in samples),
        "who_rows": _rows(who_saw_what(asked.singles[-1:])),
        "cost_rows": _rows(costs),
        "ledger_head": _head(LEDGER_COLUMNS),
        "ledger_rows": _rows(ledger_rows(records)),
        "trail_head": _head(TRAIL_COLUMNS),
        "trail_rows": _rows(trail_rows(records)),
    }
    page = Template(_resource("page.html"))
    return page.substitute({name: escape(str(text)) for name, text in texts.items()} | markup)


def _resource(name: str) -> str:
    return resources.files("libs.cli.demo").joinpath(name).read_text(encoding="utf-8")


def _head(columns: Iterable[str]) -> str:
    """The heading cells of a table; the sign for numbers in front is for the screen."""
    return "".join(f'<th scope="col">{escape(name.lstrip(">"))}</th>' for name in columns)


def _rows(rows: Iterable[Sequence[str]], *, marked: str | None = None) -> str:
    """Table rows with a heading cell each; those whose heading starts with `marked` stand out."""
    lines = []
    for heading, *cells in rows:
        opening = '<tr class="main">' if marked is not None and heading.startswith(marked) else "<tr>"
        data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'{opening}<th scope="row">{escape(heading)}</th>{data}</tr>\n')
    return "".join(lines)


def _tiles(figures: Figures, asked: Asked) -> str:
    tiles = [
        (f"{figures.encrypted.auc:.3f}", "AUC, asked under encryption"),
        (f"{figures.centralised.auc:.3f}", "AUC with all data in one place"),
        (f"{figures.agreement:.1%}", "same label as in clear"),
        (human_seconds(asked.latency_s), "for one encrypted question"),
    ]
    return "".join(f"<li><strong>{escape(value)}</strong> {escape(name)}</li>" for value, name in tiles)


def _roc(test: ImageSet, baselines: dict[str, Baseline], figures: Figures) -> str:
    curves = {
        "encrypted": figures.encrypted_probabilities,
        "one place": baselines[CENTRALISED].probabilities,
        **{f"{name} alone": baselines[name].probabilities for name in list(figures.alone)[:2]},
    }
    description = f"ROC curves on the held-out images. Encrypted: area {figures.encrypted.auc:.3f}."
    return roc_chart(curves, test.labels, description=description)


def _training(trained: Trained) -> str:
    area = trained.metrics[-1].auc or 0.0
    rounds = len(trained.metrics)
    description = f"Losses and validation AUC over {rounds} rounds. Last validation AUC: {area:.3f}."
    return training_chart(trained.metrics, description=description)


def choose_samples(labels: npt.NDArray[np.int64], *, count: int, seed: int) -> list[int]:
    """Indices of `count` images, as many of each class as can be, drawn from the seed and not by their
    answers.
    """
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(np.flatnonzero(labels == label)) for label in range(len(CLASS_NAMES))]
    share = count // len(by_class)
    chosen = [index for indices in by_class for index in indices[:share].tolist()]
    rest = [index for indices in by_class for index in indices[share:].tolist()]
    return sorted((chosen + rest)[:count])


def _sample(test: ImageSet, figures: Figures, index: int) -> str:
    probability = float(figures.encrypted_probabilities[index])
    truth = CLASS_NAMES[int(test.labels[index])].lower()
    answer = CLASS_NAMES[int(probability >= figures.threshold)].lower()
    style, verdict = ("right", "right") if answer == truth else ("wrong", f"wrong, it is {truth}")
    return (
        f'<figure><img alt="Chest X-ray of class {truth}; the answer was {answer}."'
        f' src="{_data_url(test.images[index])}"><figcaption>{answer.capitalize()}, {probability:.1%}<br>'
        f'<span class="{style}">{verdict}</span></figcaption></figure>\n'
    )


def _data_url(image: npt.NDArray[np.uint8]) -> str:
    picture = Image.fromarray(image)
    if picture.width < _SHOWN_PIXELS:
        picture = picture.resize((_SHOWN_PIXELS, _SHOWN_PIXELS), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
