"""A real coordinator over mTLS between fake parties and fake hospitals."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from libs.core.ids import PARTIES
from libs.fl.training_plan import TrainingPlan
from libs.mpc.ring import Ring
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2_grpc as pb_grpc
from libs.rpc._generated.trefoil.party.v1 import party_pb2_grpc
from libs.rpc._generated.trefoil.types.v1.types_pb2 import SignedStatement
from libs.rpc.channel import open_channel
from libs.rpc.dev_ca import issuing_secret
from libs.rpc.identity import COORDINATOR, Identity, Kind, party_identity
from libs.rpc.server import RpcServer
from libs.rpc.settings import TlsSettings
from libs.rpc.statements import sign_statement
from libs.rpc.token_settings import TokenSecretSettings
from libs.rpc.tokens import FEDERATION_AUDIENCE, FEDERATION_ISSUER, Role, TokenIssuer, TokenVerifier
from libs.runtime.private_files import write_private
from services.coordinator.bootstrap import Coordinator, build
from services.coordinator.domain import CompiledPlan
from services.coordinator.ports import ModelShape
from services.coordinator.settings import CoordinatorSettings, PartySettings
from tests.fakes.hospital import FakeHospital, Habits
from tests.fakes.keys import tls_files
from tests.fakes.parties import FakeParty

PARAMETERS = 10
SCIENTIST = Identity(Kind.CLIENT, "dana")
CLINIC = Identity(Kind.CLIENT, "clinic")
STATES = pb.StudyState


class FakeCompiler:
    """Knows how long everything is. No torch."""

    async def count_parameters(self, _plan: TrainingPlan) -> int:
        return PARAMETERS

    async def compile(self, _plan: TrainingPlan, bounds: Sequence[Mapping[str, int]]) -> CompiledPlan:
        names = {name for reported in bounds for name in reported}
        merged = {name: max(reported[name] for reported in bounds if name in reported) for name in names}
        return CompiledPlan(b'{"compiled":true}', "c" * 64, Ring.RING_32, 7, merged)

    async def describe(self, plan_json: bytes) -> ModelShape:
        return ModelShape("d" * 64, plan_json, Ring.RING_32, 5)


class Federation:
    """Starts and stops everything; every part can be stopped and started by a test."""

    def __init__(self, keys: Path, folder: Path, **settings: Any) -> None:
        self.keys, self.folder = keys, folder
        self.stack = AsyncExitStack()
        self.parties = [FakeParty() for _ in PARTIES]
        self.hospitals: dict[str, FakeHospital] = {}
        self._party_servers: list[RpcServer] = []
        self._party_ports: list[int] = []
        self._settings = settings
        self.coordinator: Coordinator | None = None
        self._address = ""

    async def start(self) -> None:
        """Parties first, then the coordinator."""
        for index in PARTIES:
            self._party_ports.append(0)
            self._party_servers.append(await self._serve_party(index))
        await self.start_coordinator()

    async def _serve_party(self, index: int) -> RpcServer:
        server = RpcServer(
            name=f"party-{index}",
            listen=f"127.0.0.1:{self._party_ports[index]}",
            tls=tls_files(self.keys, party_identity(index)),
            tokens=TokenVerifier([issuing_secret(self.keys, "federation")]),
        )
        server.add(
            party_pb2_grpc.add_PartyServiceServicer_to_server,
            self.parties[index],
            "trefoil.party.v1.PartyService",
        )
        self._party_ports[index] = await server.start()
        return server

    async def stop_party(self, index: int) -> None:
        await self._party_servers[index].stop(grace_s=0)

    async def restart_party(self, index: int) -> None:
        self._party_servers[index] = await self._serve_party(index)

    async def start_coordinator(self) -> None:
        """A coordinator with the federation's one database file."""
        files = tls_files(self.keys, COORDINATOR)
        nodes = [folder.name.removeprefix("hospital-") for folder in sorted(self.keys.glob("hospital-*"))]
        settings = CoordinatorSettings(
            listen="127.0.0.1:0",
            tls=TlsSettings(certificate=files.certificate, key=files.key, ca=files.ca),
            token_secrets=(
                TokenSecretSettings(
                    issuer=FEDERATION_ISSUER,
                    secret=self.keys / "coordinator" / "jwt.secret",
                    audience=FEDERATION_AUDIENCE,
                ),
            ),
            parties=tuple(
                PartySettings(index=index, address=f"127.0.0.1:{port}", identity=party_identity(index).uri)
                for index, port in zip(PARTIES, self._party_ports, strict=True)
            ),
            **{
                "database": f"sqlite:///{self.folder / 'coordinator.db'}",
                "preapproved": tuple(Identity(Kind.HOSPITAL, name).uri for name in nodes),
                "reattach_grace_s": 0.3,
                "watch_interval_s": 0.0,
                **self._settings,
            },
        )
        self.coordinator = build(settings, compiler=FakeCompiler())
        self._address = f"127.0.0.1:{await self.coordinator.start()}"

    @property
    def address(self) -> str:
        """Where the coordinator is now."""
        return self._address

    async def stop_coordinator(self) -> None:
        if self.coordinator is not None:
            await self.coordinator.stop(grace_s=0)
            self.coordinator = None

    async def stop(self) -> None:
        for hospital in self.hospitals.values():
            await hospital.detach()
        await self.stack.aclose()
        await self.stop_coordinator()
        for server in self._party_servers:
            await server.stop(grace_s=0)

    async def stub(self, identity: Identity = SCIENTIST, role: Role = Role.SCIENTIST) -> Any:
        """A client of the coordinator as it is now."""
        token_file = self.folder / f"{identity.kind.value}-{identity.name}-{role}.token"
        issuer = TokenIssuer(issuing_secret(self.keys, "federation"))
        token = issuer.issue(subject=identity.name, role=role, lifetime=timedelta(hours=1))
        write_private(token_file, token)
        channel = open_channel(
            address=self._address,
            server=COORDINATOR,
            tls=tls_files(self.keys, identity),
            token_file=token_file,
        )
        return pb_grpc.CoordinatorServiceStub(await self.stack.enter_async_context(channel))

    async def add_hospital(self, name: str, *, images: int = 100, **habits: Any) -> FakeHospital:
        """Attach a hospital and publish its dataset "xrays"."""
        identity = Identity(Kind.HOSPITAL, name)
        hospital = FakeHospital(identity, self.parties, Habits(**habits))
        self.hospitals[name] = hospital
        await self.attach(name)
        hospital.publish("xrays", images=images)
        stub = await self.stub()

        async def published() -> bool:
            found = await stub.SearchDatasets(pb.SearchDatasetsRequest(name_contains="xrays"))
            return any(dataset.dataset_id == f"{name}/xrays" for dataset in found.datasets)

        await eventually(published)
        return hospital

    async def attach(self, name: str) -> None:
        hospital = self.hospitals[name]
        await hospital.attach(await self.stub(hospital.identity, Role.WORKER))

    async def create(self, plan: TrainingPlan, *, hospitals: Sequence[str] = (), **changes: Any) -> Any:
        """CreateStudy over these hospitals' datasets (all, if none is named)."""
        fields = {
            "request_id": "request-1",
            "title": "Pneumonia",
            "training_plan": plan.canonical_json(),
            "dataset_ids": [f"{name}/xrays" for name in hospitals or self.hospitals],
            "parameters": PARAMETERS,
            **changes,
        }
        fields.setdefault("statement", self.signed_study(fields))
        return await (await self.stub()).CreateStudy(pb.CreateStudyRequest(**fields))

    def signed_study(self, fields: Mapping[str, Any], *, signer: Identity = SCIENTIST) -> SignedStatement:
        """What the scientist signs: just this request."""
        plan_hash = hashlib.sha256(fields["training_plan"]).hexdigest()
        named = {name: fields[name] for name in ("request_id", "title", "dataset_ids")}
        return sign_statement("study", {**named, "plan_hash": plan_hash}, tls=tls_files(self.keys, signer))

    async def launch(self, plan: TrainingPlan, **changes: Any) -> str:
        """Create and start a study; its id."""
        study_id: str = (await self.create(plan, **changes)).study.study_id
        await (await self.stub()).StartStudy(pb.StartStudyRequest(study_id=study_id))
        return study_id

    async def study(self, study_id: str) -> Any:
        return (await (await self.stub()).GetStudy(pb.GetStudyRequest(study_id=study_id))).study

    async def ended(self, study_id: str, *, timeout_s: float = 60.0) -> Any:
        """The study once it has ended."""
        last = None
        async with asyncio.timeout(timeout_s):
            stub = await self.stub()
            async for answer in stub.WatchStudy(pb.WatchStudyRequest(study_id=study_id)):
                last = answer.study
        return last


def training_plan(**changes: Any) -> TrainingPlan:
    """Two quick rounds."""
    quick = {"model": "small_cnn", "image_size": 28, "rounds": 2, "learning_rate": 0.1, "quorum": 2}
    return TrainingPlan.model_validate({**quick, **changes})


async def eventually(condition: Callable[[], Any], *, timeout_s: float = 30.0) -> None:
    """Wait until the condition, plain or awaitable, holds. The time is that of a machine with much to do."""
    async with asyncio.timeout(timeout_s):
        while True:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.02)
