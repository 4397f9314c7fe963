"""Three real parties in this process: real certificates, real sockets, real disks; and their callers."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from torch import nn

from libs.core.ids import PARTIES, PartyId, new_id
from libs.mpc.ring import Ring, RingArray
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import open_channel, translated
from libs.rpc.concurrently import together
from libs.rpc.dev_ca import create_keys, folder_name, issuing_secret
from libs.rpc.identity import COORDINATOR, Identity, Kind, party_identity
from libs.rpc.predict_client import PredictClient
from libs.rpc.settings import TlsSettings
from libs.rpc.share_client import Patience, deal_vector, fetch_vector
from libs.rpc.token_settings import TokenSecretSettings
from libs.rpc.tokens import FEDERATION_AUDIENCE, FEDERATION_ISSUER, Role, TokenIssuer
from libs.runtime.private_files import write_private
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters
from libs.secure_nn.plan import Plan
from services.smpc_party.bootstrap import Party
from services.smpc_party.settings import PartySettings, PeerSettings, PoolSettings
from services.smpc_party.wire import RING_CODES
from tests.fakes.keys import tls_files

HOSPITALS = tuple(Identity(Kind.HOSPITAL, name) for name in ("alpha", "beta", "gamma"))
SCIENTIST = Identity(Kind.CLIENT, "dana")
CLINIC = Identity(Kind.CLIENT, "clinic")
ONCE = Patience(attempts=1)
NO_POOL = PoolSettings(high_watermark=0)
"""Most tests look at what happens while a client waits, and would meet background work by chance."""
OTHER_CLINIC = Identity(Kind.CLIENT, "ward")
STUDY = "study-1"
RELEASED = f"{STUDY}/released"
FOR_THE_CLINIC = types_pb2.ModelUse(asker_identities=[CLINIC.uri])


def make_keys(folder: Path) -> Path:
    """The keys of a federation with all callers of this rig, and their tokens."""
    keys = folder / "keys"
    clients = {SCIENTIST: Role.SCIENTIST, CLINIC: Role.CLINICIAN, OTHER_CLINIC: Role.CLINICIAN}
    create_keys(keys, hospitals=[h.name for h in HOSPITALS], clients=[client.name for client in clients])
    roles = {**clients, **dict.fromkeys(HOSPITALS, Role.WORKER)}
    issuer = TokenIssuer(issuing_secret(keys, "federation"))
    for identity, role in roles.items():
        token = issuer.issue(subject=identity.name, role=role, lifetime=timedelta(hours=1))
        write_private(keys / folder_name(identity) / "token", token)
    return keys


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@dataclass
class PartyRig:
    """Starts, stops and addresses the three parties. Use as `async with`."""

    keys: Path
    folder: Path
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = free_ports(3)
        self.parties: dict[PartyId, Party] = {}
        self.reached_at: dict[PartyId, str] = {}
        """Where callers reach a party, if not at its own address."""
        self.stack = AsyncExitStack()
        self._channels: dict[tuple[PartyId, Identity], grpc.aio.Channel] = {}
        self._opened: dict[int, party_pb2.OpenRoundRequest] = {}

    async def __aenter__(self) -> PartyRig:
        for party in PARTIES:
            await self.start(party)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()
        for party in list(self.parties):
            await self.stop(party)

    def settings(self, party: PartyId) -> PartySettings:
        tls = tls_files(self.keys, party_identity(party))
        secret = self.keys / "federation" / "jwt.secret"
        return PartySettings(
            index=party,
            listen=f"127.0.0.1:{self.ports[party]}",
            tls=TlsSettings(certificate=tls.certificate, key=tls.key, ca=tls.ca),
            token_secrets=(
                TokenSecretSettings(issuer=FEDERATION_ISSUER, secret=secret, audience=FEDERATION_AUDIENCE),
            ),
            peers=tuple(
                PeerSettings(index=p, address=self.address(p), identity=party_identity(p).uri)
                for p in PARTIES
                if p != party
            ),
            store=self.folder / f"party-{party}",
            storage_key=self.keys / f"party-{party}" / "storage.key",
            **{"pool": NO_POOL, "comparison": "narrow", **self.overrides},
        )

    def address(self, party: PartyId) -> str:
        return f"127.0.0.1:{self.ports[party]}"

    async def start(self, party: PartyId) -> None:
        # a channel that failed to connect waits before it tries again; a new one does not
        self._channels = {key: channel for key, channel in self._channels.items() if key[0] != party}
        self.parties[party] = Party(self.settings(party))
        await self.parties[party].start()

    async def stop(self, party: PartyId) -> None:
        await self.parties.pop(party).server.stop(grace_s=0)

    # ---------------------------------------------------------------- callers

    async def channel(self, party: PartyId, caller: Identity) -> grpc.aio.Channel:
        if (party, caller) not in self._channels:
            token = self.keys / folder_name(caller) / "token"
            channel = open_channel(
                address=self.reached_at.get(party, self.address(party)),
                server=party_identity(party),
                tls=tls_files(self.keys, caller),
                token_file=token if token.exists() else None,
            )
            self._channels[party, caller] = await self.stack.enter_async_context(channel)
        return self._channels[party, caller]

    async def channels(self, caller: Identity) -> dict[PartyId, grpc.aio.Channel]:
        return {party: await self.channel(party, caller) for party in PARTIES}

    async def stub(self, party: PartyId, caller: Identity = COORDINATOR) -> Any:
        return party_pb2_grpc.PartyServiceStub(await self.channel(party, caller))

    async def tell_all(self, method: str, request: Any) -> list[Any]:
        """The coordinator's call to all three parties at once."""
        return await together(*[self.tell(party, method, request) for party in PARTIES], grace_s=0.5)

    async def tell(self, party: PartyId, method: str, request: Any) -> Any:
        if method == "OpenRound":
            self._opened[request.round.round] = request
        with translated():
            return await getattr(await self.stub(party), method)(request)

    # ---------------------------------------------------------------- vectors

    async def deal(
        self, vector: RingArray, ref: types_pb2.VectorRef, caller: Identity, **options: Any
    ) -> str:
        options.setdefault("patience", ONCE)
        if ref.HasField("contribution") and caller in HOSPITALS:
            opened = self._opened.get(ref.contribution.round)
            options.setdefault("terms", terms_of(caller, **(approved_result(opened) if opened else {})))
        channels = await self.channels(caller)
        return await deal_vector(vector, ring=ring_of(vector), ref=ref, channels=channels, **options)

    async def fetch(
        self,
        ref: types_pb2.VectorRef,
        caller: Identity,
        *,
        ring: Ring = Ring.RING_32,
        patience: Patience = ONCE,
    ) -> RingArray:
        return await fetch_vector(ref, ring=ring, channels=await self.channels(caller), patience=patience)

    async def deal_model(self, vector: RingArray, *, model_id: str, **fields: Any) -> None:
        """Register a model of the scientist, who lets the clinic ask it, and deal it."""
        request = party_pb2.RegisterModelRequest(
            model_id=model_id,
            ring=types_pb2.RING_32 if vector.dtype == np.uint32 else types_pb2.RING_64,
            length=len(vector),
            dealer_identity=SCIENTIST.uri,
            **{"reader_identities": [h.uri for h in HOSPITALS], "use": FOR_THE_CLINIC, **fields},
        )
        await self.tell_all("RegisterModel", request)
        await self.deal(vector, model_ref(model_id), SCIENTIST)

    async def release(self, model: SmallModel, *, hospitals: Sequence[int] = (0, 1, 2), **fields: Any) -> str:
        """A release round of these hospitals; the model's id. The first has it all, the others add zeros."""
        length, plan = len(model.parameters), model.plan.to_json()
        defaults: dict[str, Any] = {"use": FOR_THE_CLINIC, "reader_identities": [], "base_model_id": ""}
        defaults |= {"ring": RING_CODES[model.plan.ring], "result_model_id": RELEASED, "plan": plan}
        defaults["metrics_reader_identities"] = []
        await self.tell_all("OpenRound", open_request(9, length=length, metrics=0, **{**defaults, **fields}))
        for hospital in hospitals:
            part = model.parameters if hospital == hospitals[0] else np.zeros_like(model.parameters)
            await self.deal(part, contribution_ref(9), HOSPITALS[hospital])
        await self.close_round(9)
        return RELEASED

    async def set_use(
        self, hospital: Identity, *rules: party_pb2.ModelUseRule, revision: int = 1, model_id: str = ""
    ) -> list[int]:
        """A hospital's word to the three parties; the revisions that they answer."""
        request = party_pb2.SetModelUseRequest(model_id=model_id or RELEASED, rules=rules, revision=revision)
        with translated():
            answers = [await (await self.stub(p, hospital)).SetModelUse(request) for p in PARTIES]
        return [answer.revision for answer in answers]

    async def close_round(self, number: int, attempt: int = 0) -> list[party_pb2.CloseRoundResponse]:
        request = party_pb2.CloseRoundRequest(
            round=round_ref(number, attempt), computation_id=new_id("close")
        )
        return await self.tell_all("CloseRound", request)

    # ---------------------------------------------------------------- predictions

    async def open_prediction(
        self, model_id: str, *, batch: int = 1, turn: int = 0, deadline_s: float = 10.0, **fields: Any
    ) -> coordinator_pb2.OpenPredictionResponse:
        """What the coordinator does: assign roles, tell the parties, tell the client."""
        roles = {"dealer": turn % 3, "first_evaluator": (turn + 1) % 3, "second_evaluator": (turn + 2) % 3}
        computation_id = new_id("predict")
        request = party_pb2.OpenPredictionRequest(
            computation_id=computation_id,
            model_id=model_id,
            batch=batch,
            deadline_s=deadline_s,
            **{"client_identity": CLINIC.uri, **roles, **fields},
        )
        await self.tell_all("OpenPrediction", request)
        return self.assignment(computation_id, deadline_s=deadline_s, **roles)

    def assignment(self, computation_id: str, **fields: Any) -> coordinator_pb2.OpenPredictionResponse:
        parties = [
            types_pb2.Party(
                index=p,
                endpoint=types_pb2.Endpoint(address=self.address(p), identity=party_identity(p).uri),
            )
            for p in PARTIES
        ]
        return coordinator_pb2.OpenPredictionResponse(
            computation_id=computation_id, parties=parties, **fields
        )

    async def client(self, caller: Identity = CLINIC) -> PredictClient:
        token = self.keys / folder_name(caller) / "token"
        return await self.stack.enter_async_context(
            PredictClient(tls=tls_files(self.keys, caller), token_file=token)
        )


def ring_of(vector: RingArray) -> Ring:
    return Ring.RING_32 if vector.dtype == np.uint32 else Ring.RING_64


def round_ref(number: int, attempt: int = 0) -> types_pb2.RoundRef:
    return types_pb2.RoundRef(study_id=STUDY, round=number, attempt=attempt)


def model_ref(model_id: str) -> types_pb2.VectorRef:
    return types_pb2.VectorRef(model_id=model_id)


def contribution_ref(number: int, attempt: int = 0) -> types_pb2.VectorRef:
    return types_pb2.VectorRef(contribution=round_ref(number, attempt))


def metrics_ref(number: int) -> types_pb2.VectorRef:
    return types_pb2.VectorRef(metrics=round_ref(number))


WEIGHTS = (Fraction(1, 2), Fraction(3, 10), Fraction(1, 5))


def terms_of(hospital: Identity, **fields: Any) -> types_pb2.ContributionTerms:
    """What the hospital's owner approved: exactly the rounds of `open_request`."""
    weight = WEIGHTS[HOSPITALS.index(hospital)]
    defaults: dict[str, Any] = {
        "quorum": 2,
        "hospital_identities": [h.uri for h in HOSPITALS],
        "reader_identities": [h.uri for h in HOSPITALS],
        "metrics_reader_identities": [SCIENTIST.uri, *(h.uri for h in HOSPITALS)],
        "use": FOR_THE_CLINIC,
        "weight": types_pb2.Fraction(numerator=weight.numerator, denominator=weight.denominator),
        "metrics_length": 4,
    }
    return types_pb2.ContributionTerms(**{**defaults, **fields})


def approved_result(request: party_pb2.OpenRoundRequest) -> dict[str, Any]:
    """What the terms of a contribution say about the result of this very round."""
    rules: dict[str, Any] = {"metrics_length": request.metrics_length}
    if request.HasField("check"):
        rules["check"] = request.check
    if not request.plan:
        return rules
    return {
        **rules,
        "compiled_plan_hash": hashlib.sha256(request.plan).hexdigest(),
        "result_model_id": request.result_model_id,
    }


def open_request(number: int, *, length: int, metrics: int = 4, **fields: Any) -> party_pb2.OpenRoundRequest:
    """A round of the three hospitals, weighted 1/2, 3/10 and 1/5, on top of model `study-1/v0`."""
    participants = [
        party_pb2.Participant(
            hospital_identity=hospital.uri,
            weight=types_pb2.Fraction(numerator=weight.numerator, denominator=weight.denominator),
        )
        for hospital, weight in zip(HOSPITALS, WEIGHTS, strict=True)
    ]
    defaults: dict[str, Any] = {
        "ring": types_pb2.RING_32,
        "update_length": length,
        "metrics_length": metrics,
        "participants": participants,
        "quorum": 2,
        "base_model_id": f"{STUDY}/v0",
        "result_model_id": f"{STUDY}/round-{number}",
        "reader_identities": [hospital.uri for hospital in HOSPITALS],
        "metrics_reader_identities": [SCIENTIST.uri],
    }
    return party_pb2.OpenRoundRequest(**{"round": round_ref(number), **defaults, **fields})


@dataclass(frozen=True)
class SmallModel:
    """A compiled network small enough for every test."""

    module: nn.Module
    plan: Plan
    parameters: RingArray
    images: torch.Tensor

    @classmethod
    def make(cls) -> SmallModel:
        torch.manual_seed(7)
        layers = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2))
        module = nn.Sequential(*layers).eval()
        images = torch.rand(16, 1, 8, 8)
        plan = compile_module(module, input_shape=(1, 8, 8), bounds=calibrate(module, images))
        return cls(module, plan, encode_parameters(module, plan), images)

    def logits(self, count: int) -> np.ndarray:
        with torch.no_grad():
            return self.module(self.images[:count]).numpy()

    def pixels(self, count: int) -> np.ndarray:
        return self.images[:count].numpy()
