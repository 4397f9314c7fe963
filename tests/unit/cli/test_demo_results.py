"""Figures, summary and page of a demo, from made-up results."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.cli.client.predictions import EvaluatorCost, Prediction
from libs.cli.client.studies import model_of
from libs.cli.demo.asking import Asked
from libs.cli.demo.baselines import CENTRALISED, Baseline
from libs.cli.demo.figures import Figures, measure
from libs.cli.demo.journey import Trained, training_bytes
from libs.cli.demo.material import Material
from libs.cli.demo.options import DemoOptions
from libs.cli.demo.page import build_page, choose_samples
from libs.cli.demo.record_tables import ledger_rows, trail_rows
from libs.cli.demo.records import Records
from libs.cli.demo.results_folder import federation_folder, new_run_folder, point_latest_at, write_results
from libs.cli.demo.run import make_plan, run_demo
from libs.cli.demo.summary import VOLATILE, build_summary, without_volatile
from libs.core.errors import InvalidInput
from libs.data.partition import partition_patients
from libs.data.phantom import make_phantoms
from libs.data.transforms import to_model_input
from libs.fl.evaluation import predict_logits
from libs.fl.metrics import METRICS_LENGTH, RoundMetrics, score_histogram
from libs.fl.presets import default_plan
from libs.fl.vectorise import parameter_count
from libs.mpc.schemes.masked.comparison import Comparison
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.compile import compile_module
from tests.fakes.demo_records import made_records

SECONDS = {"train": 3.0, "predict": 1.0, "total": 4.5}


def _prediction(logits: np.ndarray[Any, Any], *, slower_s: float = 0.0) -> Prediction:
    costs = [
        EvaluatorCost(
            party=party,
            rounds=9,
            online_bytes=100,
            online_s=0.01,
            offline_bytes=offline,
            offline_s=0,
            dealt_ahead=False,
            comparison=Comparison.NARROW,
        )
        for party, offline in ((1, 0), (2, 70))
    ]
    return Prediction(
        computation_id="c",
        logits=logits,
        dealer=0,
        evaluators=(costs[0], costs[1]),
        opened_s=0.01,
        prepared_s=0.005,
        masked_s=0.001,
        online_s=0.014 + slower_s,
        bytes_sent=10,
        bytes_received=10,
    )


class _Run:
    """Everything that a demo holds at its end."""

    def __init__(self, *, error: float = 0.001) -> None:
        images = make_phantoms(96, size=16, seed=1)
        parts = partition_patients(images, hospitals=2, seed=1)
        self.options = DemoOptions(size=16, hospitals=2)
        self.material = Material(
            "made-up", {"north": parts[0], "east": parts[1]}, make_phantoms(40, size=16, seed=2)
        )
        self.plan = default_plan(model="small_cnn", image_size=16, images=96, rounds=2)
        module = model_of(self.plan)
        scores = score_histogram(np.array([0.2, 0.7]))
        metrics = RoundMetrics(
            train_loss_sum=5, train_samples=10, positive_scores=scores, negative_scores=scores
        )
        study = coordinator_pb2.Study(study_id="study-<1>", rounds_done=2, released_model_id="m")
        self.trained = Trained(study=study, metrics=[metrics, metrics], module=module)
        self.clear = predict_logits(module, self.material.test.images).numpy().astype(np.float64)
        noise = np.random.default_rng(0).uniform(-error, error, self.clear.shape)
        batches = [
            _prediction(self.clear[start : start + 32] + noise[start : start + 32]) for start in (0, 32)
        ]
        bounds = calibrate(module.eval(), to_model_input(images.images[:4]))
        released = compile_module(module, input_shape=(1, 16, 16), bounds=bounds)
        self.asked = Asked(released, self.clear + noise, batches, [_prediction(self.clear[:1])] * 3)
        labels = self.material.test.labels
        self.baselines = {
            name: Baseline(name, np.where(labels == 1, 0.6, 0.4), 0.5)
            for name in ("north", "east", CENTRALISED)
        }
        self.figures: Figures = measure(self.trained, self.asked, self.baselines, self.material.test)
        self.records: Records = made_records()

    def summary(self, *, created_at: str = "2026-11-01T00:00:00+00:00") -> dict[str, Any]:
        return build_summary(
            options=self.options,
            plan=self.plan,
            material=self.material,
            trained=self.trained,
            asked=self.asked,
            figures=self.figures,
            records=self.records,
            seconds=SECONDS,
            created_at=created_at,
        )

    def page(self) -> str:
        return build_page(
            plan=self.plan,
            material=self.material,
            trained=self.trained,
            asked=self.asked,
            baselines=self.baselines,
            figures=self.figures,
            records=self.records,
            seconds=SECONDS,
            summary=self.summary(),
        )


@pytest.fixture(scope="module")
def run() -> _Run:
    return _Run()


def test_the_summary_has_the_keys_that_others_rely_on(run: _Run) -> None:
    summary = json.loads(json.dumps(run.summary()))
    assert summary["data"]
    assert summary["seconds"]
    for hospital in summary["hospitals"]:
        assert {"name", "images"} <= hospital.keys()
        assert 0 <= hospital["alone"]["auc"] <= 1
    assert {"auc", "accuracy"} <= summary["centralised"].keys()
    assert {"auc", "accuracy", "sensitivity", "specificity", "mcc", "rounds"} <= summary["federated"].keys()
    expected = {
        "images",
        "label_agreement",
        "max_logit_difference",
        "max_logit_difference_bound",
        "latency_s",
        "batch32_s",
        "rounds",
        "bytes_sent_by_party",
    }
    assert expected <= summary["encrypted"].keys()
    assert {"ledgers", "trails_whole"} == summary["records"].keys()


def test_the_summary_says_what_was_taken_and_which_trails_are_whole(run: _Run) -> None:
    assert run.summary()["records"] == {
        "ledgers": {
            "north": {"entries": ["budget set", "training", "predictions"], "spent_epsilon": ["0.5"]},
            "east": {"entries": ["budget set"], "spent_epsilon": ["0"]},
        },
        "trails_whole": {"coordinator": True, "party-0": True},
    }


def test_the_largest_difference_is_exact_and_may_differ_between_runs(run: _Run) -> None:
    encrypted = run.summary()["encrypted"]
    exact = float(np.abs(run.asked.logits - run.clear).max())
    assert encrypted["max_logit_difference"] == exact < encrypted["max_logit_difference_bound"]
    assert "encrypted.max_logit_difference" in VOLATILE


def test_the_bound_holds_and_does_not_move_with_the_rounding(run: _Run) -> None:
    other = _Run(error=0.0012)
    assert run.figures.largest_difference != other.figures.largest_difference
    assert run.figures.difference_bound == other.figures.difference_bound == 2**-6
    for figures in (run.figures, other.figures):
        assert figures.largest_difference <= figures.difference_bound


@pytest.mark.parametrize(("error", "bound"), [(0.0156, 2**-6), (0.016, 2**-5), (0.04, 2**-4)])
def test_a_larger_error_gives_a_larger_bound(run: _Run, error: float, bound: float) -> None:
    figures = replace(run.figures, encrypted_logits=run.figures.clear_logits + error)
    assert figures.difference_bound == bound


def test_all_that_fresh_randomness_or_time_changes_is_declared_volatile(run: _Run) -> None:
    other = _Run(error=0.0012)
    other.asked = replace(other.asked, singles=[_prediction(other.clear[:1], slower_s=0.5)])
    first, second = run.summary(), other.summary(created_at="2026-11-02T00:00:00+00:00")
    assert first != second
    assert without_volatile(first) == without_volatile(second)
    assert set(first["volatile"]) == set(VOLATILE)


def test_training_bytes_count_every_round_and_the_release_on_every_link(run: _Run) -> None:
    both, one = ["north", "east"], ["north"]
    rounds = [
        coordinator_pb2.Round(survivor_identities=hospitals, bytes_between_parties=sent)
        for hospitals, sent in ((both, 1), (one, 20), (both, 300))
    ]
    study = coordinator_pb2.Study(rounds_done=2, rounds=rounds)
    sent = training_bytes(study, run.plan, run.asked.plan)
    weights = 4 * parameter_count(model_of(run.plan))
    release = run.asked.plan.parameter_length * run.asked.plan.ring.element_bytes
    assert sent["between_parties"] == 321
    assert sent["hospitals_to_parties"] == 3 * (weights + 4 * METRICS_LENGTH) + 2 * release + 5 * 32
    assert sent["parties_to_hospitals"] == (3 + 2 + 2) * 3 * weights, "for rounds, calibration and release"
    assert sent["scientist_to_parties"] == weights + 32
    assert sent["parties_to_scientist"] == 3 * (2 * 4 * METRICS_LENGTH + weights)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_from_elsewhere_and_describes_its_pictures(run: _Run) -> None:
    page = run.page()
    parser = _Page()
    parser.feed(page)
    tags = [tag for tag, _ in parser.tags]
    assert "script" not in tags
    assert "link" not in tags
    pictures = [attributes for tag, attributes in parser.tags if tag == "img"]
    assert len(pictures) == 8
    for attributes in pictures:
        assert (attributes["src"] or "").startswith("data:image/png;base64,")
        assert attributes["alt"]
    charts = [attributes for tag, attributes in parser.tags if tag == "svg"]
    assert len(charts) == 2
    assert all(attributes.get("aria-label") for attributes in charts)
    assert not re.search(r"(?:src|href)=\"https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert "#010101" not in page


def test_the_page_escapes_what_comes_over_the_wire(run: _Run) -> None:
    page = run.page()
    assert "study-<1>" not in page
    assert "study-&lt;1&gt;" in page
    assert "approval-<1>" not in page
    assert "approval-&lt;1&gt;" in page


def test_the_page_shows_every_ledger_entry_and_every_trail(run: _Run) -> None:
    page = run.page()
    for row in (*ledger_rows(run.records), *trail_rows(run.records)):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        assert f'<th scope="row">{row[0]}</th>{cells}' in page


def test_samples_are_of_both_classes_and_not_chosen_by_their_answers() -> None:
    labels = np.array([0] * 30 + [1] * 3, np.int64)
    chosen = choose_samples(labels, count=8, seed=3)
    assert chosen == choose_samples(labels, count=8, seed=3)
    assert len(set(chosen)) == 8
    assert sum(labels[chosen]) == 3


@pytest.mark.parametrize("wrong", [{"model": "nonsense"}, {"model": "resnet18", "size": 16}])
def test_a_model_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    options = DemoOptions(output=tmp_path / "runs", **wrong)
    with pytest.raises(InvalidInput, match="Choose"):
        run_demo(options, as_json=False)
    assert not options.output.exists()


def test_runs_of_one_second_get_different_folders(tmp_path: Path) -> None:
    now = datetime(2026, 11, 1, 12, tzinfo=UTC)
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(new_run_folder(tmp_path, now))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 4


def _fill(federation: Path) -> None:
    for file in ("party-0/log.jsonl", "party-0/shares/model", "keys/federation/secret"):
        (federation / file).parent.mkdir(parents=True, exist_ok=True)
        (federation / file).write_text("")


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_run_that_fails_or_is_stopped_keeps_its_logs_only(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    def fail() -> None:
        with federation_folder(tmp_path, keep=False) as federation:
            _fill(federation)
            raise failure

    with pytest.raises(failure):
        fail()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "logs" / "party-0.jsonl"]
    assert not (tmp_path / "federation").exists()


def test_keys_and_shares_stay_when_asked_for(tmp_path: Path) -> None:
    with federation_folder(tmp_path, keep=True) as federation:
        _fill(federation)
    assert (federation / "keys" / "federation" / "secret").exists()


def test_latest_is_a_relative_link_to_the_last_run(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, summary={"name": name}, page="<!doctype html>")
    link = tmp_path / "latest"
    assert link.readlink() == Path("second")
    assert json.loads((link / "summary.json").read_text()) == {"name": "second"}
    point_latest_at(tmp_path / "first")
    assert link.resolve() == (tmp_path / "first").resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "latest", "second"]


def test_the_demo_lets_its_clinic_ask_and_nobody_else() -> None:
    run = _Run()
    access = make_plan(run.options, run.material).model_access
    assert access.ask == ("spiffe://trefoil.local/client/clinic",)
    assert not access.ask_anyone
