"""Training, calibrating, releasing: each order checked against the owner's consent, done one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from libs.core.clock import Clock
from libs.core.errors import (
    Bug,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    TrefoilError,
    Unavailable,
)
from libs.core.ids import new_id
from libs.fl.metrics import METRICS_LENGTH
from libs.fl.model_access import named_askers, version_readers
from libs.fl.round_rules import compares_releases, max_norm_of, noise_std_of
from libs.fl.strategies.registry import strategy_of
from libs.fl.training_plan import TrainingPlan
from libs.mpc.ring import Ring, RingArray
from libs.runtime.logging import get_logger
from services.hospital_node.access.domain import Study
from services.hospital_node.access.model_use import released_model
from services.hospital_node.access.service import Access
from services.hospital_node.domain import (
    CalibrateOrder,
    ModelUse,
    Order,
    Phase,
    ReleaseOrder,
    Task,
    TaskKey,
    TaskKind,
    Terms,
    TrainOrder,
    version_number,
)
from services.hospital_node.ports import Announcer, Parties, ReleaseJob, Store, StudyJob, TrainJob, Worker
from services.hospital_node.stopping import Stopping
from services.hospital_node.worker.study_files import StudyFiles, folder_of, forget

IDLE = "idle"

log = get_logger(__name__)


class TaskRunner:
    """Carries out orders in the order in which they came. Nothing in an order is believed without a check."""

    def __init__(
        self,
        *,
        hospital: str,
        store: Store,
        access: Access,
        announcer: Announcer,
        parties: Parties,
        worker: Worker,
        data_roots: Sequence[Path],
        work_dir: Path,
        clock: Clock,
    ) -> None:
        """`work_dir` holds what is kept of studies (`worker/study_files.py`)."""
        self._work_dir, self._stopping = work_dir, Stopping(parties)
        self._hospital, self._data_roots, self._clock = hospital, tuple(data_roots), clock
        self._store, self._access, self._announcer = store, access, announcer
        self._parties, self._worker = parties, worker
        self._turn = asyncio.Lock()
        self._running: dict[TaskKey, asyncio.Task[None]] = {}
        self._orders: dict[TaskKey, Order] = {}
        self._activity = IDLE

    @property
    def activity(self) -> str:
        """What is being done now, in words."""
        return self._activity

    def accept(self, order: Order) -> None:
        """Begin, or queue. An order that is being carried out already is not begun a second time."""
        if order.key in self._running:
            log.info(
                "order_repeated", study=order.key.study_id, kind=order.key.kind.value, round=order.key.round
            )
            return
        task = asyncio.create_task(self._run(order))
        self._running[order.key], self._orders[order.key] = task, order
        task.add_done_callback(lambda _: self._forget(order.key))

    async def cancel_study(self, study_id: str) -> None:
        """Stop what runs for a study, by killing the worker where need be."""
        await self._cancel([task for key, task in self._running.items() if key.study_id == study_id])

    async def study_ended(self, study_id: str) -> None:
        """Stop what runs for the study, and keep nothing of it."""
        await self.cancel_study(study_id)
        self._stopping.forget(study_id)
        await asyncio.to_thread(forget, self._work_dir, study_id)

    async def refused(self, key: TaskKey) -> None:
        """The parties left this hospital's contribution out: for the node's log and its audit trail."""
        if await self._store.refuse_task(key):
            log.warning("contribution_refused", study=key.study_id, kind=key.kind.value, round=key.round)

    async def consent_changed(self) -> None:
        """Stop what the owner no longer consents to, and say so, lest anybody wait for it."""
        refused: dict[TaskKey, FailedPrecondition] = {}
        for key, order in list(self._orders.items()):
            try:
                await self._access.consent(study_id=key.study_id, plan_hash=order.plan_hash)
            except FailedPrecondition as error:
                refused[key] = error
        tasks = {key: self._running[key] for key in refused if key in self._running}
        await self._cancel(list(tasks.values()))
        for key, task in tasks.items():
            if task.cancelled():  # else it ended by itself, and said so
                await self._record_failure(key, refused[key])

    async def stop(self) -> None:
        """Stop everything; what was under way counts as interrupted at the next start."""
        await self._cancel(list(self._running.values()))
        await self._worker.stop()

    async def _cancel(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: TaskKey) -> None:
        del self._running[key], self._orders[key]

    async def _run(self, order: Order) -> None:
        key = order.key
        async with self._turn:
            self._activity = f"{key.kind.value} in round {key.round} of study {key.study_id}"
            try:
                await self._perform(order)
            except TrefoilError as error:
                await self._record_failure(key, error)
            except Exception as error:  # the text of an unforeseen error may hold anything
                log.error("task_broke", study=key.study_id, kind=key.kind.value, error=type(error).__name__)
                await self._record_failure(key, Bug())
            finally:
                self._activity = IDLE

    async def _perform(self, order: Order) -> None:
        """Check, pay, do, and say that it is done; or say again that it was done before.

        An old or repeated order is not paid for: no coordinator can use up a budget with it.
        """
        key = order.key
        job = await self._check(order)
        task = await self._store.done_before(order)
        if task is None:
            verdict = await self._stopping.verdict(order, job)
            if key.kind is TaskKind.TRAIN and verdict.stop:
                log.info("stop_proposed", study=key.study_id, round=key.round, best_round=verdict.best_round)
                self._announcer.stop_proposed(key, best_round=verdict.best_round)
                return
            if key.kind is TaskKind.TRAIN:
                await self._access.pay_for_attempt(
                    study_id=key.study_id, plan_hash=order.plan_hash, number=key.round, attempt=key.attempt
                )
            await self._store.start_task(order)
            log.info("task_started", study=key.study_id, kind=key.kind.value, round=key.round)
            task = await self._carry_out(order, job)
            log.info("task_done", study=key.study_id, kind=key.kind.value, round=key.round)
        self._announcer.task_done(task)

    async def _check(self, order: Order) -> StudyJob:
        """What the order needs, if the owner approved that. Raises FailedPrecondition or InvalidInput."""
        key = order.key
        study, dataset = await self._access.consent(study_id=key.study_id, plan_hash=order.plan_hash)
        rounds = TrainingPlan.from_json(study.training_plan).rounds
        if key.kind is TaskKind.TRAIN and not 1 <= key.round <= rounds:
            raise InvalidInput(
                f"The approved plan has rounds 1 to {rounds}; round {key.round} is not one of them."
            )
        if key.kind is TaskKind.RELEASE and key.round <= rounds:
            raise InvalidInput(f"A release comes after the plan's {rounds} rounds, not in round {key.round}.")
        return StudyJob(
            training_plan=study.training_plan,
            dataset_path=Path(dataset.path),
            data_roots=self._data_roots,
            content_hash=dataset.content_hash,
            folder=folder_of(self._work_dir, key.study_id),
            base_round=version_number(order.base_model_id, study_id=key.study_id),
        )

    async def _carry_out(self, order: Order, job: StudyJob) -> Task:
        """Do it before the deadline, or kill the worker and raise DeadlineExceeded."""
        left_s = (order.deadline - self._clock.now()).total_seconds()
        try:
            async with asyncio.timeout(left_s):
                match order:
                    case TrainOrder():
                        return await self._train(order, job)
                    case CalibrateOrder():
                        return await self._calibrate(order, job)
                    case ReleaseOrder():
                        return await self._release(order, job)
        except TimeoutError:
            raise DeadlineExceeded(
                "This hospital did not finish before the round's deadline. If that repeats, propose a plan "
                "with a longer round_deadline_s."
            ) from None

    async def _train(self, order: TrainOrder, job: StudyJob) -> Task:
        base = await self._fetch(order, job)
        contribution = await self._worker.train(
            TrainJob(
                study=job,
                hospital=self._hospital,
                round=order.key.round,
                weight=order.weight,
                counted_round=order.counted_round,
            ),
            base,
            lambda fraction: self._announcer.progressed(order.key, Phase.TRAINING, fraction),
        )
        return await self._send(order, contribution, ring=Ring.RING_32)

    async def _calibrate(self, order: CalibrateOrder, job: StudyJob) -> Task:
        base = await self._fetch(order, job)
        try:
            bound_bits = await self._bounds(order, job, base)
        except Unavailable as error:
            # A round that lacks a hospital is held again; a study that lacks a calibration ends.
            log.warning("calibration_repeated", study=order.key.study_id, code=error.code)
            bound_bits = await self._bounds(order, job, base)
        return await self._store.finish_task(order.key, bound_bits=bound_bits)

    async def _bounds(self, order: CalibrateOrder, job: StudyJob, base: RingArray) -> dict[str, int]:
        self._announcer.progressed(order.key, Phase.CALIBRATING, 0.0)
        return await self._worker.calibrate(
            job, base, lambda fraction: self._announcer.progressed(order.key, Phase.CALIBRATING, fraction)
        )

    async def _release(self, order: ReleaseOrder, job: StudyJob) -> Task:
        base = await self._fetch(order, job)
        release = ReleaseJob(
            study=job,
            bound_bits=order.bound_bits,
            compiled_plan_hash=order.compiled_plan_hash,
            weight=order.weight,
        )
        contribution, ring = await self._worker.release(release, base)
        return await self._send(order, contribution, ring=ring)

    async def _fetch(self, order: Order, job: StudyJob) -> RingArray:
        """The version to start from. If it means something only after all before, the worker reads those too:
        from what it kept on, or from the first when it kept nothing, or only later ones.
        """
        self._announcer.progressed(order.key, Phase.FETCHING, 0.0)
        base = await self._parties.fetch(order.base_model_id)
        if strategy_of(TrainingPlan.from_json(job.training_plan)).reads_all_versions:
            kept = await asyncio.to_thread(StudyFiles(job.folder).kept_up_to, job.base_round)
            for number in range(kept + 1, job.base_round):
                version = await self._parties.fetch(f"{order.key.study_id}/round-{number}")
                await self._worker.read_version(job, version, number=number)
            if kept < job.base_round:
                await self._worker.read_version(job, base, number=job.base_round)
        return base

    async def _send(self, order: TrainOrder | ReleaseOrder, contribution: RingArray, *, ring: Ring) -> Task:
        """Deal under an upload id that is on disk before the first share leaves (see DECISIONS.md).

        On the terms that the owner approved, and only if that still holds.
        """
        key = order.key
        self._announcer.progressed(key, Phase.SENDING, 0.0)
        study, _ = await self._access.consent(study_id=key.study_id, plan_hash=order.plan_hash)
        task = await self._store.mark_sending(key, upload_id=new_id("upload"))
        terms = _terms(order, study)
        await self._parties.deal(key, contribution, ring=ring, upload_id=task.upload_id, terms=terms)
        return await self._store.finish_task(key)

    async def _record_failure(self, key: TaskKey, error: TrefoilError) -> None:
        """Keep and tell it. An order that was refused before it began leaves the task as it was."""
        text = (
            str(error)
            if not isinstance(error, Bug)
            else "The hospital's node has a defect; its log says more."
        )
        log.warning("task_failed", study=key.study_id, kind=key.kind.value, round=key.round, code=error.code)
        try:
            await self._store.fail_task(key, code=error.code, message=text)
        except FailedPrecondition:
            log.info("order_refused", study=key.study_id, kind=key.kind.value, round=key.round)
        self._announcer.task_failed(key, code=error.code, message=text)


def _terms(order: TrainOrder | ReleaseOrder, study: Study) -> Terms:
    """What the parties must not let the coordinator weaken.

    A released model is read by nobody, and asked by those whom the plan names: as it was compiled here, and
    under the name that this hospital's later word on its use goes by. Versions on the way are read as the
    plan says, and asked by nobody.
    """
    plan = TrainingPlan.from_json(study.training_plan)
    creator = study.requester
    if isinstance(order, ReleaseOrder):
        return Terms(
            quorum=plan.quorum,
            hospitals=study.hospitals,
            readers=(),
            metrics_readers=(),
            use=_use(plan, creator),
            weight=order.weight,
            metrics_length=0,
            compiled_plan_hash=order.compiled_plan_hash,
            result_model_id=released_model(study.study_id),
            same=compares_releases(plan),
        )
    return Terms(
        quorum=plan.quorum,
        hospitals=study.hospitals,
        readers=version_readers(plan, creator=creator, hospitals=study.hospitals),
        metrics_readers=study.readers,
        use=ModelUse(),
        weight=order.weight,
        metrics_length=METRICS_LENGTH,
        max_norm=max_norm_of(plan, round_number=order.key.round),
        noise_std=noise_std_of(plan),
    )


def _use(plan: TrainingPlan, creator: str) -> ModelUse:
    access = plan.model_access
    askers = () if access.ask_anyone else named_askers(plan, creator=creator)
    return ModelUse(access.ask_anyone, askers, access.max_predictions or 0)
