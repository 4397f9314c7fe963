"""A service that ends itself, as `kill -9` would, at a point that a test names while it runs.

`python -m tests.fakes.mortal_service --config ROOT/<service>/settings.toml` is the real service, but each
call of a method in `POINTS` looks for an order in `ROOT/<service>/die.json`: the point, whether before or
after the method, and who dies, the service or the worker that it started. The order is taken away first, so
that whoever is started again lives.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import runpy
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

MODULES = {
    "coordinator": "services.coordinator",
    "party": "services.smpc_party",
    "hospital": "services.hospital_node",
}
ORDER = "die.json"

POINTS: dict[str, tuple[str, ...]] = {
    "coordinator": (
        "services.coordinator.adapters.parties:GrpcParties.open_round",
        "services.coordinator.adapters.parties:GrpcParties.close_round",
        "services.coordinator.hospital_events:HospitalEvents._contribution_sent",
        "services.coordinator.hospital_events:HospitalEvents._calibration",
        "services.coordinator.releases:Releases.begin",
        "services.coordinator.releases:Releases.finish",
    ),
    "party": (
        "services.smpc_party.adapters.index:Index.open_round",
        "services.smpc_party.adapters.index:Index.put_contribution",
        "services.smpc_party.adapters.index:Index.prepare",
        "services.smpc_party.adapters.index:Index.commit",
    ),
    "hospital": (
        "services.hospital_node.link:Outbox.progressed",
        "services.hospital_node.adapters.worker_process:WorkerProcess.train",
        "services.hospital_node.adapters.worker_process:WorkerProcess.calibrate",
        "services.hospital_node.adapters.worker_process:WorkerProcess.release",
        "services.hospital_node.adapters.parties:ShareParties.fetch",
        "services.hospital_node.adapters.parties:ShareParties.deal",
        "services.hospital_node.tasks:TaskRunner._send",
    ),
}


@dataclass(frozen=True)
class Death:
    """Who dies where. `point` is the end of a name in `POINTS`, such as "Index.prepare"."""

    service: str
    point: str
    after: bool = False
    worker: bool = False
    text: str = ""
    """Only at a call with this among its arguments' texts."""

    def __str__(self) -> str:
        who = f"{self.service}'s worker" if self.worker else self.service
        return f"{who} {'after' if self.after else 'before'} {self.point} {self.text}".strip()

    def order(self, folder: Path) -> None:
        """Have it happen at the next such call. `folder` is the service's."""
        fresh = folder / f"{ORDER}.new"
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(folder / ORDER)

    @staticmethod
    def happened(folder: Path) -> bool:
        """Whether the order was carried out."""
        return not (folder / ORDER).exists()


def _obey(folder: Path, point: str, arguments: str, *, after: bool) -> None:
    file = folder / ORDER
    if not file.exists():
        return
    order = Death(**json.loads(file.read_text()))
    if not point.endswith(order.point) or order.after is not after or order.text not in arguments:
        return
    if order.worker:
        children = psutil.Process().children()
        if children:
            file.unlink()
        for child in children:
            child.kill()
        return
    file.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def _mortal(method: Callable[..., Any], point: str, folder: Path) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            arguments = repr((args[1:], kwargs))
            _obey(folder, point, arguments, after=False)
            result = await method(*args, **kwargs)
            _obey(folder, point, arguments, after=True)
            return result

    else:

        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            arguments = repr((args[1:], kwargs))
            _obey(folder, point, arguments, after=False)
            result = method(*args, **kwargs)
            _obey(folder, point, arguments, after=True)
            return result

    return wrapped


def main() -> None:
    """Make the service mortal, and become it."""
    folder = Path(sys.argv[sys.argv.index("--config") + 1]).resolve().parent
    kind = folder.name.partition("-")[0]
    for point in POINTS[kind]:
        module, _, name = point.partition(":")
        owner, _, method = name.partition(".")
        target = getattr(importlib.import_module(module), owner)
        setattr(target, method, _mortal(getattr(target, method), name, folder))
    runpy.run_module(MODULES[kind], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
