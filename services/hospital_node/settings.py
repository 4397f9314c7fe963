"""Everything that can be set about a hospital node. Unknown keys are refused."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from libs.rpc.settings import RpcSettings
from libs.runtime.settings import ServiceSettings


class CoordinatorSettings(ServiceSettings):
    """The one service that this node dials to get work."""

    address: str = Field(description='"host:port"')


class HospitalSettings(RpcSettings):
    """One hospital node. `listen` is for the hospital's own staff; nobody else dials in."""

    name: str = Field(description="as in its certificate: spiffe://trefoil.local/hospital/<name>")
    coordinator: CoordinatorSettings
    worker_token: Path = Field(description="file with this node's token for coordinator and parties")
    database: str = "sqlite:///hospital.db"
    work_dir: Path = Field(default=Path("work"), description="working folder of the worker processes")
    data_roots: tuple[Path, ...] = Field(min_length=1, description="folders that data may be published from")
    train_threads: int = Field(default=1, ge=1, le=256, description="CPU threads for training")
