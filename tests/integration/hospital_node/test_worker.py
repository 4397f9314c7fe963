"""The worker as it is in production: another process, real images, real torch, pipes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from libs.core.errors import FailedPrecondition, InvalidInput, Unavailable
from libs.data.phantom import make_phantoms
from libs.data.transforms import to_model_input
from libs.fl.calibration import calibration_images
from libs.fl.metrics import METRICS_LENGTH, decode_metrics
from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.strategy_parameters import ServerOptimizer, Strategy
from libs.fl.training_plan import TrainingPlan
from libs.fl.update_encoding import decode_vector, encode_weights, weigh_encoded
from libs.fl.vectorise import load_state_vector, parameter_count, state_vector
from libs.fl.versions import first_version, read_versions
from libs.models.registry import build_model
from libs.mpc.ring import RingArray
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters
from services.hospital_node.adapters.worker_process import WorkerProcess
from services.hospital_node.ports import ReleaseJob, StudyJob, TrainJob
from services.hospital_node.worker.study_files import StudyFiles
from tests.integration.hospital_node.conftest import IMAGES

PLAN = TrainingPlan(
    model="small_cnn", image_size=28, rounds=3, learning_rate=0.05, batch_size=8, validation_fraction=0.25
)


pytestmark = pytest.mark.asyncio(loop_scope="module")  # that of the worker's pipes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkerProcess]:
    """One for all tests, as a node has: to load PyTorch takes longer than what is asked of it."""
    process = WorkerProcess(threads=1, work_dir=tmp_path_factory.mktemp("worker") / "work")
    yield process
    await process.stop()


def model():
    return build_model(PLAN.model, channels=1, classes=2, size=PLAN.image_size, seed=PLAN.seed)


@pytest.fixture(scope="module")
def base() -> RingArray:
    return encode_weights(state_vector(model()), scale_bits=PLAN.scale_bits)


async def study_job(
    worker: WorkerProcess,
    data_root: Path,
    plan: TrainingPlan = PLAN,
    *,
    folder: Path | None = None,
    base_round: int = 0,
) -> StudyJob:
    found = await worker.inspect(path=data_root / "chest", data_roots=[data_root])
    return StudyJob(
        training_plan=plan.canonical_json(),
        dataset_path=data_root / "chest",
        data_roots=[data_root],
        content_hash=found.content_hash,
        folder=folder or data_root / "kept",
        base_round=base_round,
    )


def train_job(study: StudyJob, *, number: int = 1, hospital: str = "alpha") -> TrainJob:
    return TrainJob(study=study, hospital=hospital, round=number, weight=Fraction(1, 3))


def ignore(_fraction: float) -> None:
    return


async def test_a_round_gives_an_encoded_update_with_metrics_and_progress(
    worker: WorkerProcess, data_root: Path, base: RingArray
) -> None:
    heard: list[float] = []
    job = train_job(await study_job(worker, data_root))
    contribution = await worker.train(job, base, heard.append)
    size = parameter_count(model())
    assert contribution.shape == (size + METRICS_LENGTH,)
    assert contribution.dtype == np.uint32
    update = decode_vector(contribution[:size], scale_bits=PLAN.scale_bits)
    assert 0 < np.abs(update).max() < PLAN.update_bound
    metrics = decode_metrics(contribution[size:])
    assert metrics.train_samples + metrics.validation_samples == IMAGES
    assert heard
    assert all(0 < fraction <= 1 for fraction in heard)


async def test_the_same_job_gives_the_same_bytes_and_another_round_or_hospital_gives_others(
    worker: WorkerProcess, data_root: Path, base: RingArray
) -> None:
    study = await study_job(worker, data_root)
    jobs = [train_job(study), train_job(study), train_job(study, number=2), train_job(study, hospital="beta")]
    first, again, other_round, other_hospital = [await worker.train(job, base, ignore) for job in jobs]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other_round)
    assert not np.array_equal(first, other_hospital)


async def test_a_round_that_is_repeated_starts_from_what_was_kept_of_the_last_one_that_counted(
    worker: WorkerProcess, data_root: Path, tmp_path: Path
) -> None:
    plan = PLAN.model_copy(update={"strategy": Strategy.SCAFFOLD, "momentum": 0.0})
    versions = first_version(plan)
    study = await study_job(worker, data_root, plan, folder=tmp_path / "kept")
    first = await worker.train(train_job(study), versions, ignore)
    second = replace(train_job(study, number=2), counted_round=1)
    held, again = [await worker.train(second, versions, ignore) for _ in range(2)]
    assert np.array_equal(held, again)
    uncounted = await worker.train(replace(second, counted_round=0), versions, ignore)
    assert not np.array_equal(held, uncounted)
    assert np.array_equal(first, await worker.train(train_job(study), versions, ignore))
    with pytest.raises(FailedPrecondition, match="kept from round 2"):
        await worker.train(
            replace(train_job(replace(study, folder=tmp_path / "lost"), number=3), counted_round=2),
            versions,
            ignore,
        )


async def test_what_versions_mean_to_a_server_optimiser_is_kept_and_needed(
    worker: WorkerProcess, data_root: Path, base: RingArray, tmp_path: Path
) -> None:
    plan = PLAN.model_copy(update={"strategy": Strategy.FEDADAM, "server_optimizer": ServerOptimizer()})
    study = await study_job(worker, data_root, plan, folder=tmp_path / "kept", base_round=1)
    with pytest.raises(FailedPrecondition, match="at the next order"):
        await worker.train(train_job(study, number=2), base, ignore)
    following = base + np.uint32(1000)
    await worker.read_version(study, base, number=0)
    await worker.read_version(study, following, number=1)
    contribution = await worker.train(train_job(study, number=2), following, ignore)
    expected = read_versions(plan, [base, following])
    kept = StudyFiles(study.folder).opened()
    assert kept is not None
    assert np.array_equal(kept.weights, expected)
    plain = await worker.train(
        train_job(await study_job(worker, data_root, base_round=1), number=2), following, ignore
    )
    assert not np.array_equal(contribution, plain)


async def test_the_event_loop_goes_on_while_the_worker_trains(
    worker: WorkerProcess, data_root: Path, base: RingArray
) -> None:
    plan = PLAN.model_copy(update={"local_epochs": 20})
    study = await study_job(worker, data_root, plan)
    gaps: list[float] = []
    training = asyncio.create_task(worker.train(train_job(study), base, ignore))
    while not training.done():
        before = time.monotonic()
        await asyncio.sleep(0.005)
        gaps.append(time.monotonic() - before)
    await training
    assert len(gaps) > 10
    assert max(gaps) < 0.5


async def test_a_killed_worker_is_a_clear_error_and_the_next_job_works(
    worker: WorkerProcess, data_root: Path, base: RingArray
) -> None:
    plan = PLAN.model_copy(update={"local_epochs": 100})
    study = await study_job(worker, data_root, plan)
    started = asyncio.Event()
    training = asyncio.create_task(worker.train(train_job(study), base, lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 30)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="new one"):
        await training
    short = replace(study, training_plan=PLAN.canonical_json())
    assert (await worker.train(train_job(short), base, ignore)).dtype == np.uint32


async def test_cancelling_a_job_kills_its_process_and_the_next_job_works(
    worker: WorkerProcess, data_root: Path, base: RingArray
) -> None:
    plan = PLAN.model_copy(update={"local_epochs": 100})
    study = await study_job(worker, data_root, plan)
    started = asyncio.Event()
    training = asyncio.create_task(worker.train(train_job(study), base, lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 30)
    pid = worker.pid
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (await worker.inspect(path=data_root / "chest", data_roots=[data_root])).images == IMAGES


async def test_a_diverging_training_is_an_error_in_words_and_not_a_contribution(
    worker: WorkerProcess, data_root: Path, base: RingArray
) -> None:
    plan = PLAN.model_copy(update={"update_bound": 1e-4})
    with pytest.raises(InvalidInput, match="update_bound"):
        await worker.train(train_job(await study_job(worker, data_root, plan)), base, ignore)


async def test_with_privacy_noise_goes_out_and_nothing_else_that_depends_on_images(
    worker: WorkerProcess, data_root: Path
) -> None:
    privacy = PrivacyParameters(target_epsilon=8.0, delta=1e-4)
    plan = PLAN.model_copy(update={"model": "small_cnn_private", "privacy": privacy})
    private = build_model(plan.model, channels=1, classes=2, size=plan.image_size, seed=plan.seed)
    base = encode_weights(state_vector(private), scale_bits=plan.scale_bits)
    study = await study_job(worker, data_root, plan)
    first, again = [await worker.train(train_job(study), base, ignore) for _ in range(2)]
    assert not first[-METRICS_LENGTH:].any()
    assert not np.array_equal(first, again)
    bounds = await worker.calibrate(study, base, ignore)
    made_up = calibration_images(make_phantoms(8, size=plan.image_size, seed=3), plan)
    assert bounds == calibrate(private.eval(), to_model_input(made_up.images))


async def test_weights_of_another_model_are_refused(
    worker: WorkerProcess, data_root: Path, base: RingArray
) -> None:
    with pytest.raises(InvalidInput, match="shape"):
        await worker.train(train_job(await study_job(worker, data_root)), base[:-1], ignore)


async def test_every_hospital_compiles_the_plan_from_the_bounds_and_weighs_the_same_parameters(
    worker: WorkerProcess, data_root: Path, base: RingArray
) -> None:
    study = await study_job(worker, data_root)
    bounds = await worker.calibrate(study, base, ignore)
    assert bounds
    trained = model().eval()
    load_state_vector(trained, decode_vector(base, scale_bits=PLAN.scale_bits))
    compiled = compile_module(trained, input_shape=(1, 28, 28), bounds=bounds)
    job = ReleaseJob(study=study, bound_bits=bounds, compiled_plan_hash=compiled.hash, weight=Fraction(2, 5))
    contribution, ring = await worker.release(job, base)
    assert ring is compiled.ring
    expected = weigh_encoded(encode_parameters(trained, compiled), weight=Fraction(2, 5))
    assert np.array_equal(contribution, expected)
    with pytest.raises(FailedPrecondition, match="another plan"):
        await worker.release(replace(job, compiled_plan_hash="0" * 64), base)


async def test_files_that_changed_since_they_were_published_are_not_trained_on(
    worker: WorkerProcess, data_root: Path, base: RingArray, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    study = await study_job(worker, root)
    await worker.train(train_job(study), base, ignore)
    image = next((root / "chest" / "NORMAL").glob("*.png"))
    image.unlink()
    with pytest.raises(FailedPrecondition, match="no longer") as caught:
        await worker.train(train_job(study), base, ignore)
    assert image.name not in str(caught.value)


async def test_a_refusal_names_the_file_to_the_owner_and_the_worker_goes_on(
    worker: WorkerProcess, data_root: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "chest"
    shutil.copytree(data_root / "chest", broken)
    sorted((broken / "NORMAL").glob("*.png"))[0].write_bytes(b"not an image")
    with pytest.raises(InvalidInput, match=r"file: chest/NORMAL/000000\.png"):
        await worker.inspect(path=broken, data_roots=[tmp_path])
    pid = worker.pid
    assert (await worker.inspect(path=data_root / "chest", data_roots=[data_root])).images == IMAGES
    assert worker.pid == pid
