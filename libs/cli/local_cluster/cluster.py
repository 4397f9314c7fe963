"""A whole federation on this machine: coordinator, three parties and the hospitals as real processes over
mTLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from libs.cli.local_cluster import layout
from libs.cli.local_cluster.health import wait_until_listening, wait_until_serving
from libs.cli.local_cluster.link_emulation import LinkEmulation
from libs.cli.local_cluster.ports import PortReservation, is_free
from libs.cli.local_cluster.process import ServiceProcess, stop_all
from libs.cli.local_cluster.termination import sigterm_as_exit
from libs.cli.settings_files import Settings, to_toml
from libs.core.errors import Unavailable

T = TypeVar("T")

_START_TIMEOUT_S = 120.0  # seven interpreters that load PyTorch on two cores
_GRACE_S = 10.0
_ATTEMPTS = 3
LINKS = "links"
"""The process between all others, when links are emulated."""


class ProcessDied(Unavailable):
    """A service of the cluster ended by itself. The text holds the end of its log."""


class LocalCluster:
    """Starts, watches and stops the processes. A context manager: whatever happens inside, nothing is left
    running.

    >>> with LocalCluster(Path("cluster"), hospitals=("north", "east", "south")) as cluster:  # doctest: +SKIP
    ...     cluster.profile("scientist")
    """

    def __init__(
        self,
        root: Path,
        *,
        hospitals: Sequence[str] = ("north", "east", "south"),
        cells: int = 1,
        record_received: bool = False,
        overrides: Mapping[str, Settings] | None = None,
        threads: int = 1,
        link: LinkEmulation | None = None,
        preapproved: bool = True,
        only: Collection[str] | None = None,
    ) -> None:
        """`link`: what every connection between processes, clients included, is slowed down to.
        `preapproved`: hospitals belong here from the start; else the operator has to approve each.
        `only`: names of the services to start; whoever starts the cluster plays the others with their keys.
        """
        self.root = layout.private_folder(root.resolve())
        self.hospitals = tuple(hospitals)
        self.cells = cells
        self._all = layout.services_of(self.hospitals, cells)
        self.services = tuple(service for service in self._all if only is None or service.name in only)
        self._record_received, self._link = record_received, link
        self._preapproved = preapproved
        self._overrides = dict(overrides or {})
        self._ports = PortReservation()
        self._processes: dict[str, ServiceProcess] = {}
        # The kernel ties a child to the *thread* that started it. This one lives as long as the cluster,
        # where
        # a thread that restarts a service for a test may not.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cluster-starter")
        self._expected_down: set[str] = set()
        self._open = ExitStack()
        # One thread a process: seven of them share the cores, and more threads only get into each other's
        # way.
        self._environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if record_received:
            self._environment["TREFOIL_TESTING"] = "1"
        self.addresses: dict[str, str] = {}
        self.reached_at: dict[str, str] = {}

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Keys, settings, processes; returns when all answer their health check.

        A port that a stranger took in the meantime costs one more attempt with other ports.
        """
        layout.make_identities(self.root, self.hospitals, self.cells)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start_once()
            except ProcessDied:
                stolen = not all(self._has_its_port(service.name) for service in self.services)
                stolen = stolen or self._link_emulator_ended()
                self._stop_processes()
                if not stolen or attempt == _ATTEMPTS:
                    raise
            else:
                return

    def _start_once(self) -> None:
        self._ports.release()
        self.addresses = {service.name: f"127.0.0.1:{self._ports.take()}" for service in self._all}
        self.reached_at = self.addresses
        if self._link is not None:
            self.reached_at = self._start_links(self._link)
        layout.write_settings(
            self.root,
            self.hospitals,
            self.addresses,
            cells=self.cells,
            preapproved=self._preapproved,
            reached_at=self.reached_at,
            record_received=self._record_received,
            overrides=self._overrides,
        )
        layout.write_profiles(self.root, self.hospitals, self.reached_at)
        for service in self.services:
            self._start_process(service.name, service.module)
        for service in self.services:
            self._wait(service)

    def _start_process(self, name: str, module: str) -> None:
        folder = self.folder(name)
        self._processes[name] = ServiceProcess(
            name=name,
            module=module,
            config=folder / "settings.toml",
            log=folder / "log.jsonl",
            environment=self._environment,
        )
        self._starter.submit(self._processes[name].start).result()

    def _start_links(self, link: LinkEmulation) -> dict[str, str]:
        """Where each service is reached over an emulated link. First to start, so last to be stopped."""
        reached_at = {name: f"127.0.0.1:{self._ports.take()}" for name in self.addresses}
        routes = {reached_at[name]: self.addresses[name] for name in self.addresses}
        settings = layout.private_folder(self.folder(LINKS)) / "settings.toml"
        settings.write_text(to_toml(link.settings(routes)))
        self._start_process(LINKS, "libs.cli.local_cluster.link_emulator")
        for address in routes:
            wait_until_listening(address, timeout_s=_START_TIMEOUT_S, still_running=self.check)
        return reached_at

    def _link_emulator_ended(self) -> bool:
        """Of itself: one of its ports was taken."""
        return LINKS in self._processes and not self._processes[LINKS].running

    def _has_its_port(self, name: str) -> bool:
        """Whether the service runs, or could have had its port."""
        port = int(self.addresses[name].rpartition(":")[2])
        return self._processes[name].running or is_free(port)

    def _wait(self, service: layout.Service) -> None:
        wait_until_serving(
            address=self.addresses[service.name],
            server=service.identity,
            tls=layout.tls_files(self.folder("client-scientist")),
            timeout_s=_START_TIMEOUT_S,
            still_running=self.check,
        )

    def stop(self) -> None:
        """Stop every process and give the ports back. Safe to call twice."""
        self._stop_processes()
        self._ports.release()
        self._starter.shutdown()

    def _stop_processes(self) -> None:
        self._expected_down.update(self._processes)
        # Those that dial first, so that nobody logs the loss of a server that was to go anyway.
        stop_all(list(reversed(self._processes.values())), grace_s=_GRACE_S)
        self._processes.clear()
        self._expected_down.clear()

    def __enter__(self) -> Self:
        self._open.enter_context(sigterm_as_exit())
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._open.close()

    # ------------------------------------------------------------ names and places

    def folder(self, name: str) -> Path:
        """The folder of a service (`party-0`, `hospital-north`) or client (`client-clinic`)."""
        return self.root / name

    def profile(self, client: str) -> Path:
        """The connection profile of `scientist`, `clinic`, `operator` or `staff-<hospital>`."""
        return self.folder(f"client-{client}") / "profile.toml"

    def process(self, name: str) -> ServiceProcess:
        """The process of a service."""
        return self._processes[name]

    def received(self, name: str) -> Path:
        """Where a service records what it receives, when the cluster was told to record."""
        return self.folder(name) / "received"

    # ------------------------------------------------------------ faults

    def check(self) -> None:
        """Raise `ProcessDied`, with the end of its log, when a process ended that nobody stopped."""
        for name, process in self._processes.items():
            code = process.exit_code()
            if code is not None and name not in self._expected_down:
                raise ProcessDied(
                    f"{name} ended by itself (exit code {code}). The end of {process.log}:\n{process.tail()}"
                )

    async def guard(self, work: Coroutine[Any, Any, T], *, every_s: float = 0.5) -> T:
        """The result of `work`. When a process dies meanwhile, that is the error and `work` is cancelled."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=every_s)
                self.check()
            if task.exception() is not None:
                await asyncio.sleep(every_s)  # a broken link is often the first sign of a process that dies
                self.check()
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def kill(self, name: str) -> None:
        """SIGKILL, as a power cut would end it."""
        self._expected_down.add(name)
        self._processes[name].kill()

    def restart(self, name: str) -> None:
        """Start a killed service again on its port and with its folder; returns when it is healthy."""
        process = self._processes[name]
        if process.running:
            raise RuntimeError(f"{name} is still running; kill it first")
        self._starter.submit(process.start).result()
        self._expected_down.discard(name)
        self._wait(next(service for service in self.services if service.name == name))
