"""One hospital node without a federation, as a process of its own: for what concerns its staff alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libs.cli.local_cluster import layout
from libs.cli.local_cluster.cluster import ProcessDied
from libs.cli.local_cluster.health import wait_until_serving
from libs.cli.local_cluster.ports import PortReservation
from libs.cli.local_cluster.process import ServiceProcess
from libs.cli.settings_files import hospital_settings, to_toml
from libs.rpc.identity import Identity, Kind

_START_TIMEOUT_S = 120.0
_GRACE_S = 10.0


@contextmanager
def lone_hospital(root: Path, name: str) -> Iterator[str]:
    """Runs until left; its address. Its keys and settings, and those of its staff, are below `root`.

    It goes on trying to reach a coordinator, of which there is none.
    """
    with PortReservation() as ports:
        layout.make_identities(root, (name,))
        home, address = root / f"hospital-{name}", f"127.0.0.1:{ports.take()}"
        (home / "data").mkdir()
        nobody = f"127.0.0.1:{ports.take()}"
        config = home / "settings.toml"
        config.write_text(to_toml(hospital_settings(name=name, listen=address, coordinator=nobody)))
        node = ServiceProcess(
            name=name,
            module="services.hospital_node",
            config=config,
            log=home / "log.jsonl",
            environment={},
        )

        def still_running() -> None:
            if not node.running:
                raise ProcessDied(f"The node ended by itself:\n{node.tail()}")

        node.start()
        try:
            wait_until_serving(
                address=address,
                server=Identity(Kind.HOSPITAL, name),
                tls=layout.tls_files(root / f"client-staff-{name}"),
                timeout_s=_START_TIMEOUT_S,
                still_running=still_running,
            )
            yield address
        finally:
            node.stop(grace_s=_GRACE_S)
