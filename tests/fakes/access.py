"""A hospital's consent with everything around it real but the network: database, signatures, audit trail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from libs.dp.budget import UNBOUNDED, Spend
from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.training_plan import TrainingPlan
from libs.rpc.dev_ca import DevelopmentCa, folder_name
from libs.rpc.identity import Identity, Kind, TlsFiles
from libs.rpc.signing import TlsSigner, checkpoint_check, read_authorities
from libs.rpc.statements import sign_statement
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.audit.verify import verify_trail
from services.hospital_node.access import ledger, requests, rules
from services.hospital_node.access.domain import (
    AccessRequest,
    Approval,
    LedgerEntry,
    Purpose,
    Rule,
    Study,
    Told,
)
from services.hospital_node.access.requests import Decided, Decision
from services.hospital_node.access.service import Access
from services.hospital_node.access.statements import Asked, Proposal, StatementReader
from services.hospital_node.adapters.access_store import SqlAccess
from services.hospital_node.adapters.database import Database
from services.hospital_node.adapters.dataset_store import DatasetStore
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from tests.fakes.hospital_ports import HOSPITALS, NOW, PLAN, STUDY, dataset, shelve

ALPHA = Identity(Kind.HOSPITAL, "alpha")
DANA = Identity(Kind.CLIENT, "dana")
OWNER = "spiffe://trefoil.local/client/owner (owner)"
FREELY = Spend(UNBOUNDED)
PRIVATE_PLAN = TrainingPlan(
    model="small_cnn_private",
    image_size=28,
    rounds=2,
    learning_rate=0.05,
    batch_size=8,
    privacy=PrivacyParameters(target_epsilon=2, delta=1e-5, noise_multiplier=8.0),
)


def cost(epsilon: str, delta: str = "0") -> Spend:
    """Exact."""
    return Spend(Fraction(epsilon), Fraction(delta))


@dataclass
class MovingClock:
    """Stands still unless told otherwise."""

    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return 0.0


class People:
    """Certificates of one federation, made when first asked for, and what their holders sign."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ca = folder, DevelopmentCa(clock=MovingClock())

    def files(self, identity: Identity) -> TlsFiles:
        folder = self._folder / folder_name(identity)
        if not folder.exists():
            self._ca.issue(identity, folder)
        return TlsFiles(certificate=folder / "tls.crt", key=folder / "tls.key", ca=folder / "ca.crt")

    def authorities(self) -> bytes:
        return self.files(ALPHA).ca.read_bytes()

    def proposal(
        self,
        plan: TrainingPlan = PLAN,
        *,
        study_id: str = STUDY,
        signer: Identity = DANA,
        says: Mapping[str, Any] | None = None,
        **changed: Any,
    ) -> Proposal:
        """A study as an honest coordinator passes it on; `says` and `changed` make it another."""
        said = {
            "request_id": f"create {study_id}",
            "title": "Pneumonia",
            "plan_hash": plan.hash,
            "dataset_ids": ["alpha/chest", "beta/chest"],
        }
        statement = sign_statement("study", {**said, **(says or {})}, tls=self.files(signer))
        honest = Proposal(
            study_id=study_id,
            title="Pneumonia",
            requested_by="dana",
            dataset_name="chest",
            plan_hash=plan.hash,
            training_plan=plan.canonical_json(),
            hospitals=HOSPITALS,
            readers=(signer.uri, *HOSPITALS),
            statement=statement,
        )
        return replace(honest, **changed)

    def asked(
        self,
        request_id: str = "request-1",
        *,
        plan: TrainingPlan = PLAN,
        signer: Identity = DANA,
        **says: Any,
    ) -> Asked:
        """A request for access as an honest coordinator passes it on."""
        said: dict[str, Any] = {
            "request_id": request_id,
            "dataset_id": "alpha/chest",
            "purpose": "training",
            "plan_hash": plan.hash,
            "epsilon": "inf",
            "delta": "0",
            "uses": 1,
            "reason": "A detector of pneumonia",
            "requested_at": NOW.isoformat(),
        }
        statement = sign_statement("access-request", {**said, **says}, tls=self.files(signer))
        return Asked(request_id, statement, plan.canonical_json(), "dana")


@dataclass
class RememberingListener:
    """What the coordinator would hear."""

    plans: list[tuple[str, bool, str]] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def plan_decided(self, *, study_id: str, plan_hash: str, approved: bool, reason: str) -> None:
        self.plans.append((study_id, approved, reason))

    def access_decided(self, decision: Told) -> None:
        self.told.append(decision)


class AccessRig:
    """Access over a real database."""

    def __init__(self, transactions: Transactions, people: People) -> None:
        self.transactions, self.people, self.clock = transactions, people, MovingClock()
        self.listener = RememberingListener()
        signer = TlsSigner(people.files(ALPHA))
        self.trail = AuditTrail(trail=ALPHA.uri, tables=AUDIT, clock=self.clock, signer=signer)
        self.store = SqlAccess(transactions, trail=self.trail, clock=self.clock)
        self.database = Database(transactions, self.trail)
        self.datasets = DatasetStore(transactions, self.trail, self.clock)
        self.access = Access(
            store=self.store,
            reader=StatementReader(hospital=ALPHA, authorities=people.authorities),
            listener=self.listener,
            clock=self.clock,
        )

    async def ready(self, *, budget: Spend | None = FREELY) -> AccessRig:
        """With the data set `chest` and, if there is one, its budget."""
        await shelve(self.datasets, dataset())
        if budget is not None:
            await self.set_budget(budget)
        return self

    async def set_budget(self, budget: Spend) -> ledger.Balance:
        return await self.store.run(
            lambda unit: ledger.set_budget(unit, dataset_name="chest", budget=budget, actor=OWNER)
        )

    async def decide(self, request_id: str, decision: Decision | None = None) -> Decided:
        """The owner says yes, without differential privacy, or what `decision` says."""
        decision = decision or Decision(approve=True, granted=FREELY, plan_hash=PLAN.hash)
        decided = await self.store.run(lambda unit: requests.decide(unit, request_id, decision, actor=OWNER))
        self.access.tell(decided)
        return decided

    async def revoke(self, name: str) -> Decided:
        decided = await self.store.run(
            lambda unit: requests.revoke(unit, name, actor=OWNER, reason="changed our mind")
        )
        self.access.tell(decided)
        return decided

    async def add_rule(self, **changed: Any) -> Rule:
        """Pre-approves training without privacy on `chest`, twice for each requester."""
        rule = Rule(
            rule_id="",
            purposes=frozenset({Purpose.TRAINING}),
            dataset_names=frozenset({"chest"}),
            plan_hashes=frozenset(),
            requesters=frozenset(),
            at_most=FREELY,
            uses=2,
            until=None,
            created_by=OWNER,
            created_at=NOW,
        )
        return await self.store.run(lambda unit: rules.add_rule(unit, replace(rule, **changed)))

    async def study(self, study_id: str = STUDY) -> Study | None:
        return await self.store.run(lambda unit: unit.study(study_id))

    async def request(self, request_id: str) -> AccessRequest | None:
        return await self.store.run(lambda unit: unit.request(request_id))

    async def requests(self) -> list[AccessRequest]:
        return await self.store.run(lambda unit: unit.requests(pending_only=False, after="", limit=None))

    async def approval_of(self, request_id: str) -> Approval:
        found = await self.store.run(lambda unit: unit.approval_of(request_id))
        assert found is not None
        return found

    async def entries(self) -> list[LedgerEntry]:
        """Without budgets."""
        found = await self.store.run(lambda unit: unit.entries())
        return [entry for entry in found if entry.line.approval_id]

    def audited(self) -> list[str]:
        """The actions of the audit trail, whose chain is verified on the way."""
        return [entry["action"] for entry in self.audit_entries()]

    def audit_entries(self) -> list[dict[str, Any]]:
        """The entries of the audit trail, whose chain is verified on the way."""
        with self.transactions.engine.begin() as connection:
            self.trail.checkpoint(connection)
            exported = self.trail.export(connection, after=0, limit=100_000)
        check = checkpoint_check(read_authorities(self.people.authorities()))
        report = verify_trail([json.dumps(line) for line in exported], check_signature=check)
        assert report.finding is None, report.finding
        return [line for line in exported if line["kind"] == "entry"]
