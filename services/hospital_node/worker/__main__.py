"""The worker process: `python -m services.hospital_node.worker --log-level LEVEL`.

The number of threads comes in OMP_NUM_THREADS, which numpy's and torch's libraries read as they load. Reads
requests from standard input, answers on standard output, one job at a time, until its input ends. A job that
raises is answered; a process that breaks is replaced by the node.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from libs.core import errors
from libs.core.errors import Bug, TrefoilError
from libs.runtime.logging import configure_logging, get_logger
from services.hospital_node.worker import frames
from services.hospital_node.worker.datasets import Datasets
from services.hospital_node.worker.frames import Frame
from services.hospital_node.worker.inspection import inspect

PROGRESS_INTERVAL_S = 0.25

log = get_logger(__name__)


def main() -> None:
    """Serve until the node closes our input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log-level", default="info")
    arguments = parser.parse_args()
    configure_logging(service="hospital_worker", level=arguments.log_level)
    requests, answers = sys.stdin.buffer, _claim_stdout()
    log.info("worker_started", threads=os.environ.get("OMP_NUM_THREADS"))
    datasets = Datasets()
    while (request := frames.read(requests)) is not None:
        _send(answers, _serve(request, datasets, answers))


def _serve(request: Frame, datasets: Datasets, answers: BinaryIO) -> Frame:
    """The answer to one request, whatever happens to it."""
    last = 0.0

    def progress(fraction: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= PROGRESS_INTERVAL_S:
            last = now
            _send(answers, Frame("progress", fields={"fraction": fraction}))

    try:
        return _job(request.kind)(request, datasets, progress)
    except TrefoilError as error:
        return Frame("failed", fields={"code": _code(error), "message": str(error)})
    except MemoryError:
        return Frame(
            "failed", fields={"code": "unavailable", "message": "This hospital's worker ran out of memory."}
        )
    except Exception as error:  # the text of an unforeseen error may hold anything, so it stays here
        log.error("job_broke", job=request.kind, error=type(error).__name__, where=_where(error))
        return Frame("failed", fields={"code": Bug.code, "message": ""})


def _job(kind: str) -> Callable[[Frame, Datasets, Callable[[float], None]], Frame]:
    """The function for a kind of request. The first job that needs torch waits seconds for it to load."""
    if kind == "inspect":
        return inspect
    from services.hospital_node.worker.jobs import JOBS  # noqa: PLC0415 - loads torch

    return JOBS[kind]


def _code(error: TrefoilError) -> str:
    """The code of the nearest class that the node knows too: those of libs.core.errors."""
    known = (
        cls
        for cls in type(error).__mro__
        if issubclass(cls, TrefoilError) and cls.__module__ == errors.__name__
    )
    return next(known, Bug).code


def _where(error: BaseException) -> list[str]:
    """file:line of each frame, and nothing that a frame held."""
    places, traceback = [], error.__traceback__
    while traceback is not None:
        places.append(f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return places


def _claim_stdout() -> BinaryIO:
    """Standard output for answers alone: whatever a library prints goes to standard error instead."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _send(answers: BinaryIO, frame: Frame) -> None:
    answers.write(frames.encode(frame))
    answers.flush()


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)  # the node is gone; nobody waits for an answer
