"""An evaluation without the rows that need services: what is written, what is stored, what is done again."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from libs.cli.epsilons import parse_epsilons
from libs.cli.evaluate import code, schedule
from libs.cli.evaluate.material import Material, divide_between, load_material
from libs.cli.evaluate.options import EvaluateOptions, RowKind
from libs.cli.evaluate.rows import rows_of
from libs.cli.evaluate.run import do_steps, run_evaluation
from libs.cli.evaluate.store import Outcome, StepKey, StepStore
from libs.cli.evaluate.training import TrainingJob, run_training, threshold_facts
from libs.cli.output import remarks
from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.data.phantom import make_phantoms
from libs.fl.auc_inference import estimate_aucs
from libs.fl.private_training import require_separable
from libs.fl.resampling import bootstrap
from libs.models.registry import build_model

HOSPITALS = ("north", "east")
WITHOUT_SERVICES = tuple(kind for kind in RowKind if kind not in {RowKind.SECURE, RowKind.ENCRYPTED})


def _options(output: Path, **changes: Any) -> EvaluateOptions:
    values = {"rows": WITHOUT_SERVICES, "hospitals": 2, "size": 16, "rounds": 1, "epsilons": (4.0, 8.0)}
    values |= {"phantoms": 160, "workers": 1, "quick": True}
    return EvaluateOptions(output=output, **(values | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluateOptions, Path]:
    options = _options(tmp_path_factory.mktemp("evaluation"), repeats=2)
    return options, run_evaluation(options, as_json=False)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The recipes and epsilons of the trainings that a test does, in order."""
    done: list[str] = []

    def noted(job: TrainingJob, material: Material, on_progress: Callable[[float], None]) -> Outcome:
        privacy = job.plan.privacy
        done.append("+".join(job.division) if privacy is None else f"epsilon {privacy.target_epsilon:g}")
        return run_training(job, material, on_progress)

    monkeypatch.setattr(schedule, "run_training", noted)
    return done


def _do(options: EvaluateOptions) -> dict[str, Outcome]:
    material = load_material(options)
    return do_steps(rows_of(options, material, HOSPITALS), material, options, remarks())


# ------------------------------------------------------------ what is written


def test_every_row_is_in_every_document(finished: tuple[EvaluateOptions, Path]) -> None:
    _, folder = finished
    titles = ["north alone", "east alone", "all data in one place", "federated, even"]
    titles += ["federated, Dirichlet 0.5", *(f"+ differential privacy, epsilon {e}" for e in (4, 8))]
    document = json.loads((folder / "results.json").read_text())
    assert [row["title"] for row in document["rows"]] == titles
    with (folder / "table.csv").open(newline="") as stream:
        assert [row["title"] for row in csv.DictReader(stream)] == titles
    report, page = ((folder / name).read_text() for name in ("report.md", "index.html"))
    for title in titles:
        assert f"| {title} |" in report
        assert f">{title}<" in page
    assert "$" not in report
    for name in ("intervals", "roc", "reliability", "auc_by_epsilon"):
        assert f"({name}.png)" in report
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "var(--series-1)" in (folder / f"{name}.svg").read_text()


def test_the_page_is_whole_and_asks_nobody_for_anything(finished: tuple[EvaluateOptions, Path]) -> None:
    page = (finished[1] / "index.html").read_text()
    assert not re.search(r"<script|src=\"http|url\(http|@import", page)
    assert "$" not in page
    open_tags: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in {"meta", "br", "img", "path", "use"}:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in {"path", "use"}:
                assert open_tags.pop() == tag

        def handle_startendtag(self, tag: str, attrs: Any) -> None:
            pass

    Balance().feed(page)
    assert not open_tags


def test_figures_are_scikit_learns_on_the_stored_answers(finished: tuple[EvaluateOptions, Path]) -> None:
    options, folder = finished
    test = load_material(options).test
    labels = test.labels
    for row in json.loads((folder / "results.json").read_text())["rows"]:
        areas, accuracies, scores = [], [], []
        for step in row["seeds"]:
            with np.load(folder / "steps" / f"{step['inputs_sha256'][:32]}.npz") as arrays:
                answers = arrays["probabilities"]
            scores.append(answers)
            areas.append(oracle.roc_auc_score(labels, answers))
            accuracies.append(oracle.accuracy_score(labels, answers >= step["threshold"]))
        interval = estimate_aucs(np.array(scores), labels, patients=test.patients).mean()
        assert row["auc"] == pytest.approx(row["auc"] | asdict(interval))
        drawn = bootstrap(
            scores[0],
            labels,
            threshold=row["seeds"][0]["threshold"],
            seed=options.seed,
            patients=test.patients,
            resamples=options.resamples,
        )
        assert row["bootstrap"] == {name: asdict(one) for name, one in drawn.items()}
        assert row["auc"]["estimate"] == pytest.approx(np.mean(areas))
        assert row["auc"]["sd_between_seeds"] == pytest.approx(np.std(areas, ddof=1))
        assert row["accuracy"] == pytest.approx(np.mean(accuracies))
        assert (row["against_centralised"] is None) == (row["id"] == "centralised")


def test_rows_with_privacy_say_what_they_spent_and_no_others_do(
    finished: tuple[EvaluateOptions, Path],
) -> None:
    for row in json.loads((finished[1] / "results.json").read_text())["rows"]:
        cost = row["cost"]
        if row["kind"] == "private":
            assert cost["target_epsilon"] * 0.9 < cost["epsilon"] <= cost["target_epsilon"]
            assert cost["delta"] == 1e-4
            assert {step["threshold_from"] for step in row["seeds"]} == {"fixed"}
        else:
            assert cost["epsilon"] is cost["delta"] is None
            assert {step["threshold_from"] for step in row["seeds"]} == {"validation images"}


def test_a_threshold_does_not_depend_on_the_test_images(tmp_path: Path) -> None:
    options = _options(tmp_path, rows=(RowKind.CENTRALISED, RowKind.FEDERATED))
    material = load_material(options)
    others = make_phantoms(40, size=16, seed=99)
    wrong = ImageSet(others.images, 1 - others.labels, others.patients, others.names)
    found = []
    for test in (material.test, wrong):
        changed = replace(material, test=test)
        outcomes = do_steps(rows_of(options, changed, HOSPITALS), changed, options, remarks())
        found.append([outcome.facts["threshold"] for outcome in outcomes.values()])
    assert found[0] == found[1]


@pytest.mark.parametrize(("chosen", "used"), [(None, 0.5), (0.0, 0.01), (0.25, 0.25), (1.0, 0.99)])
def test_a_threshold_never_gives_every_image_the_same_label(chosen: float | None, used: float) -> None:
    assert threshold_facts(chosen)["threshold"] == used


# ------------------------------------------------------------ what is done again


def test_a_run_that_was_interrupted_goes_on_where_it_was(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(tmp_path, epsilons=(8.0,))
    kept, keep = [], StepStore.keep

    def stopped(store: StepStore, key: StepKey, outcome: Outcome) -> None:
        if len(kept) == 3:
            raise KeyboardInterrupt  # as when it is killed after a training and before it is stored
        kept.append(key.name)
        keep(store, key, outcome)

    with monkeypatch.context() as patch:
        patch.setattr(StepStore, "keep", stopped)
        with pytest.raises(KeyboardInterrupt):
            _do(options)
    assert len(trained) == 4
    trained.clear()
    _do(options)
    assert len(trained) == 3
    trained.clear()
    _do(options)
    assert not trained


def test_a_changed_option_trains_what_it_touches(tmp_path: Path, trained: list[str]) -> None:
    options = _options(tmp_path, epsilons=(8.0,))
    _do(options)
    trained.clear()
    _do(replace(options, epsilons=(4.0, 8.0)))
    assert trained == ["epsilon 4"]
    trained.clear()
    _do(replace(options, skews=(0.1,)))
    assert trained == ["north+east"]
    trained.clear()
    _do(replace(options, private_rounds=2))
    assert trained == ["epsilon 8"]
    trained.clear()
    _do(replace(options, delta=1e-5))
    assert trained == ["epsilon 8"]
    trained.clear()
    _do(options)  # and going back costs nothing
    assert not trained


def test_other_code_or_data_trains_everything(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(tmp_path, rows=(RowKind.CENTRALISED,))
    _do(options)
    _do(replace(options, phantoms=168))
    assert trained == ["centralised", "centralised"]
    monkeypatch.setattr("libs.cli.evaluate.rows.training_code", lambda: "another")
    _do(options)
    assert len(trained) == 3
    assert "again, for code" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_answers_with_privacy_too(tmp_path: Path) -> None:
    options = _options(tmp_path / "a", rows=(RowKind.FEDERATED, RowKind.PRIVATE), epsilons=(8.0,))
    first, second = _do(options), _do(replace(options, output=tmp_path / "b"))
    assert first.keys() == second.keys()
    for key, outcome in first.items():
        np.testing.assert_array_equal(outcome.probabilities, second[key].probabilities)


@pytest.mark.slow
def test_processes_beside_each_other_answer_as_one_does(tmp_path: Path) -> None:
    options = _options(tmp_path / "a", epsilons=(8.0,))
    one, two = _do(options), _do(replace(options, output=tmp_path / "b", workers=2))
    for key, outcome in one.items():
        np.testing.assert_array_equal(outcome.probabilities, two[key].probabilities)


# ------------------------------------------------------------ store


def _kept(folder: Path) -> tuple[StepStore, StepKey]:
    store, key = StepStore(folder), StepKey("a row", {"plan": {"rounds": 3}, "skew": (0.5,)})
    store.keep(key, Outcome({"threshold": 0.5}, {"probabilities": np.array([0.25, 0.5])}))
    return store, key


def test_a_result_is_found_as_it_was_stored_and_only_by_its_inputs(tmp_path: Path) -> None:
    store, key = _kept(tmp_path)
    found = store.find(key)
    assert found is not None
    assert found.facts == {"threshold": 0.5}
    assert found.probabilities.tolist() == [0.25, 0.5]
    assert store.find(StepKey("a row", {"plan": {"rounds": 4}, "skew": (0.5,)})) is None
    assert store.why_again(StepKey("a row", {"plan": {"rounds": 4}, "skew": (0.5,)})) == ("plan",)
    assert store.why_again(StepKey("another", {})) == ()


@pytest.mark.parametrize("suffix", ["json", "npz"])
@pytest.mark.parametrize("harm", ["gone", "short", "other"])
def test_a_damaged_result_is_none(tmp_path: Path, suffix: str, harm: str) -> None:
    store, key = _kept(tmp_path)
    (path,) = tmp_path.glob(f"*.{suffix}")
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-20] if harm == "short" else data.replace(b"0.5", b"0.6", 1)[::-1])
    assert store.find(key) is None


def test_answers_exchanged_behind_its_back_are_noticed(tmp_path: Path) -> None:
    store, key = _kept(tmp_path)
    (path,) = tmp_path.glob("*.npz")
    np.savez(path, probabilities=np.array([0.75, 0.5]))
    assert store.find(key) is None


def test_the_hash_of_the_code_leaves_out_what_only_reads_results() -> None:
    for name in code._LOOKS_ON:
        assert (code._ROOT / "libs/fl" / name).is_file()
    assert code.training_code() != code.services_code()


# ------------------------------------------------------------ material and options


def test_hospitals_get_all_images_once_healthy_first(tmp_path: Path) -> None:
    train = make_phantoms(120, size=16, seed=3)
    division = divide_between(train, HOSPITALS, skew=0.5, seed=1)
    assert sorted(i for own in division.values() for i in own) == list(range(120))
    patients = [{train.patients[i] for i in own} for own in division.values()]
    assert not patients[0] & patients[1]
    for own in division.values():
        assert (np.diff(train.labels[list(own)]) >= 0).all()


def test_quick_takes_fewer_images_and_the_same_test_set(tmp_path: Path) -> None:
    options = _options(tmp_path, phantoms=2200, size=8)
    quick, whole = load_material(options), load_material(replace(options, quick=False))
    assert len(quick.train) < 1600 < len(whole.train)
    assert quick.test.content_hash == whole.test.content_hash
    assert not set(quick.train.patients) & set(quick.test.patients)


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "inf", "1,,x"])
def test_epsilons_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="above 0"):
        parse_epsilons(text)


def test_rows_come_in_the_tables_order_and_unknown_ones_are_named() -> None:
    assert RowKind.parse(["private", " alone"]) == (RowKind.ALONE, RowKind.PRIVATE)
    assert RowKind.parse([""]) == tuple(RowKind)
    assert parse_epsilons(" 8, 1") == (8.0, 1.0)
    with pytest.raises(InvalidInput, match="encripted"):
        RowKind.parse(["encripted"])


def test_the_usual_private_network_trains_privately(tmp_path: Path) -> None:
    options = _options(tmp_path)
    require_separable(build_model(options.private_model, channels=1, classes=2, size=28, seed=0))
