"""Training what is not trained yet, on as many cores as there are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from libs.cli.evaluate.material import Material
from libs.cli.evaluate.rows import Step
from libs.cli.evaluate.store import Outcome, StepStore
from libs.cli.evaluate.training import TrainingJob, run_training

_MOST_WORKERS = 4
_PARTS = 1000
"""Of a progress bar."""


def usual_workers() -> int:
    """One for each core, up to a few."""
    return max(1, min(_MOST_WORKERS, os.cpu_count() or 1))


def train_all(
    steps: Sequence[Step],
    material: Material,
    store: StepStore,
    *,
    workers: int,
    console: Console,
) -> dict[str, Outcome]:
    """Outcomes by the keys' hashes, each stored as soon as it is there. Steps begin in the order given."""
    done: dict[str, Outcome] = {}
    with _progress(console) as bars:
        overall = bars.add_task("rows trained", total=len(steps))

        def finished(step: Step, outcome: Outcome) -> None:
            store.keep(step.key, outcome)
            done[step.key.hash] = outcome
            bars.advance(overall)

        run = _one_by_one if workers == 1 or len(steps) < 2 else _beside_each_other
        run(steps, material, workers, bars, finished)
    return done


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


_Finished = Callable[[Step, Outcome], None]


def _one_by_one(
    steps: Sequence[Step], material: Material, _workers: int, bars: Progress, finished: _Finished
) -> None:
    for step in steps:
        bar = bars.add_task(f"  {step.key.name}", total=_PARTS)

        def heard(fraction: float, bar: Any = bar) -> None:
            bars.update(bar, completed=round(fraction * _PARTS))

        outcome = run_training(_job(step), material, heard)
        bars.remove_task(bar)
        finished(step, outcome)


def _beside_each_other(
    steps: Sequence[Step], material: Material, workers: int, bars: Progress, finished: _Finished
) -> None:
    """Each in a process of its own kind: fresh ones, which share nothing with this program's threads."""
    context = multiprocessing.get_context("spawn")
    heard, telling = context.Pipe(duplex=False)
    over, shown = threading.Event(), {}

    def listen() -> None:
        while not over.is_set():
            if not heard.poll(0.1):
                continue
            number, fraction = heard.recv()
            if number not in shown:
                shown[number] = bars.add_task(f"  {steps[number].key.name}", total=_PARTS)
            bars.update(shown[number], completed=round(fraction * _PARTS), visible=fraction < 1)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    jobs = [(number, _job(step)) for number, step in enumerate(steps)]
    try:
        # Leaving the block ends the workers, whatever happened inside.
        with context.Pool(
            min(workers, len(steps)), _begin_worker, (material, telling, context.Lock())
        ) as pool:
            for number, outcome in pool.imap_unordered(_work, jobs):
                finished(steps[number], outcome)
    finally:
        over.set()
        listener.join()


def _job(step: Step) -> TrainingJob:
    assert isinstance(step.work, TrainingJob)  # the caller sorts steps by their work
    return step.work


class _Worker:
    """What a worker process keeps."""

    material: Material
    telling: Any
    turn: Any


def _begin_worker(material: Material, telling: Any, turn: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends the workers
    _Worker.material, _Worker.telling, _Worker.turn = material, telling, turn


def _work(numbered: tuple[int, TrainingJob]) -> tuple[int, Outcome]:
    number, job = numbered

    def tell(fraction: float) -> None:
        with _Worker.turn:
            _Worker.telling.send((number, fraction))

    return number, run_training(job, _Worker.material, tell)
