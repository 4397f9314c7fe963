"""The worker as seen from the node: a child process, started when first needed, killed when in doubt."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from libs.core import errors
from libs.core.errors import Bug, TrefoilError, Unavailable
from libs.mpc.ring import Ring, RingArray
from libs.runtime.logging import get_logger
from services.hospital_node.ports import Inspection, OnProgress, ReleaseJob, StudyJob, TrainJob
from services.hospital_node.worker import frames
from services.hospital_node.worker.frames import BrokenFrameError, Frame

STOP_TIMEOUT_S = 2.0

_ERRORS: Mapping[str, type[TrefoilError]] = {
    cls.code: cls
    for cls in (
        errors.InvalidInput,
        errors.PermissionDenied,
        errors.NotFound,
        errors.FailedPrecondition,
        errors.TooLarge,
        errors.Unavailable,
        errors.StorageFull,
    )
}

log = get_logger(__name__)


class WorkerProcess:
    """Implements `ports.Worker` with one child process and one request at a time.

    The process has no network of its own and none of the node's keys; it dies with the node, because its
    input ends.
    """

    def __init__(self, *, threads: int, work_dir: Path, log_level: str = "info") -> None:
        self._threads, self._work_dir, self._log_level = threads, work_dir, log_level
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The running child's number, if there is one."""
        return None if self._process is None else self._process.pid

    async def inspect(self, *, path: Path, data_roots: Sequence[Path]) -> Inspection:
        fields = {"path": str(path), "data_roots": [str(root) for root in data_roots]}
        return Inspection(**(await self._call(Frame("inspect", fields))).fields)

    async def read_version(self, job: StudyJob, version: RingArray, *, number: int) -> None:
        fields = _study_fields(job) | {"number": number}
        await self._call(Frame("read_version", fields, {"version": version}))

    async def train(self, job: TrainJob, base: RingArray, on_progress: OnProgress) -> RingArray:
        fields = _study_fields(job.study) | {
            "hospital": job.hospital,
            "round": job.round,
            "counted_round": job.counted_round,
            "weight": [job.weight.numerator, job.weight.denominator],
        }
        return (await self._call(Frame("train", fields, {"base": base}), on_progress)).arrays["contribution"]

    async def calibrate(self, job: StudyJob, base: RingArray, on_progress: OnProgress) -> dict[str, int]:
        answer = await self._call(Frame("calibrate", _study_fields(job), {"base": base}), on_progress)
        return dict(answer.fields["bound_bits"])

    async def release(self, job: ReleaseJob, base: RingArray) -> tuple[RingArray, Ring]:
        fields = _study_fields(job.study) | {
            "bound_bits": dict(job.bound_bits),
            "compiled_plan_hash": job.compiled_plan_hash,
            "weight": [job.weight.numerator, job.weight.denominator],
        }
        answer = await self._call(Frame("release", fields, {"base": base}))
        return answer.arrays["contribution"], Ring(answer.fields["ring_bits"])

    async def stop(self) -> None:
        """Let the process end by itself for a moment, then kill it."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            await _kill(process)

    async def _call(self, request: Frame, on_progress: Callable[[float], None] | None = None) -> Frame:
        """One request, one answer. Whatever keeps us from reading the answer costs the process its life.

        After a cancellation or a broken frame the pipe may hold an answer to a question that nobody asks any
        more.
        """
        async with self._turn:
            process = await self._running()
            try:
                answer = await _exchange(process, request, on_progress)
            except (OSError, BrokenFrameError):
                answer = None
            except BaseException:
                await self._discard(process)
                raise
            if answer is None:
                await self._discard(process)
                log.error("worker_crashed", job=request.kind, exit_status=process.returncode)
                raise Unavailable(
                    "The hospital's worker process stopped unexpectedly, perhaps for lack of memory. Nothing "
                    "was sent. A new one is started for the next task."
                )
        if answer.kind == "failed":
            raise _error_of(answer)
        return answer

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._work_dir.mkdir(parents=True, exist_ok=True)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "services.hospital_node.worker", "--log-level", self._log_level),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=frames.MAX_HEADER_BYTES,
                cwd=self._work_dir,
                env=_environment(self._threads),
            )
            log.info("worker_spawned", pid=self._process.pid)
        return self._process

    async def _discard(self, process: asyncio.subprocess.Process) -> None:
        self._process = None
        await _kill(process)


def _environment(threads: int) -> dict[str, str]:
    """The node's own, with our import path, and the thread counts that libraries read while loading."""
    repository = str(Path(__file__).resolve().parents[3])
    search = os.pathsep.join([repository, *filter(None, [os.environ.get("PYTHONPATH")])])
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return os.environ | {"PYTHONPATH": search} | counts


async def _exchange(
    process: asyncio.subprocess.Process, request: Frame, on_progress: Callable[[float], None] | None
) -> Frame | None:
    if process.stdin is None or process.stdout is None:
        raise Bug("the worker was started without pipes")
    process.stdin.write(frames.encode(request))
    await process.stdin.drain()
    while (answer := await frames.read_async(process.stdout)) is not None and answer.kind == "progress":
        if on_progress is not None:
            on_progress(float(answer.fields["fraction"]))
    return answer


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def _study_fields(job: StudyJob) -> dict[str, object]:
    return {
        "training_plan": job.training_plan.decode(),
        "dataset_path": str(job.dataset_path),
        "data_roots": [str(root) for root in job.data_roots],
        "content_hash": job.content_hash,
        "folder": str(job.folder),
        "base_round": job.base_round,
    }


def _error_of(answer: Frame) -> TrefoilError:
    cls = _ERRORS.get(answer.fields["code"])
    if cls is None:
        return Bug(
            "The hospital's worker failed at something that it should be able to do. Its log says more."
        )
    return cls(answer.fields["message"])
