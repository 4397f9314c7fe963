"""Everything that can be set about a hospital node. Unknown keys are refused."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from pydantic import Field, field_validator

from libs.rpc.settings import RpcSettings
from libs.runtime.settings import ServiceSettings
from services.hospital_node.dicomweb.settings import DicomWebSettings


class CoordinatorSettings(ServiceSettings):
    """The one service that this node dials to get work."""

    address: str = Field(description='"host:port"')


class HospitalSettings(RpcSettings):
    """One hospital node. `listen` is for the hospital's own staff; nobody else dials in."""

    name: str = Field(description="as in its certificate: spiffe://trefoil.local/hospital/<name>")
    coordinator: CoordinatorSettings
    worker_token: Path = Field(description="file with this node's token for coordinator and parties")
    database: str = "sqlite:///hospital.db"
    work_dir: Path = Field(
        default=Path("work"), description="of worker processes, and what is kept of running studies"
    )
    data_roots: tuple[Path, ...] = Field(min_length=1, description="folders that data may be published from")
    dicomweb: dict[str, DicomWebSettings] = Field(
        default={}, description="archives that images may be fetched from, each as [dicomweb.NAME]"
    )
    dicomweb_cache: Path = Field(
        default=Path("dicomweb"), description="folder that keeps what came from them"
    )
    accounts_dir: Path = Field(default=Path("accounts"), description="keys of accounts, and the owner's code")
    session_idle_h: float = Field(default=12, gt=0, le=24 * 30, description="a session unused so long ends")
    session_longest_days: float = Field(
        default=7, gt=0, le=90, description="every session ends after so long"
    )
    train_threads: int = Field(default=1, ge=1, le=256, description="CPU threads for training")

    @property
    def readable_roots(self) -> tuple[Path, ...]:
        """Folders whose files may become data sets: `data_roots`, and what came from archives."""
        return (*self.data_roots, self.dicomweb_cache) if self.dicomweb else self.data_roots

    @field_validator("dicomweb")
    @classmethod
    def _plain_names(cls, servers: dict[str, DicomWebSettings]) -> dict[str, DicomWebSettings]:
        if not all(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name, re.ASCII) for name in servers):
            raise ValueError("names of servers have lower-case letters, digits, hyphens and underscores")
        return servers

    @property
    def session_idle(self) -> timedelta:
        """The same, as code takes it."""
        return timedelta(hours=self.session_idle_h)

    @property
    def session_longest(self) -> timedelta:
        """The same, as code takes it."""
        return timedelta(days=self.session_longest_days)
