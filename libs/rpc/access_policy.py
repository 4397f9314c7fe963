"""Who may call what: one line per RPC, by full method name. What is not listed is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from libs.rpc.identity import Kind
from libs.rpc.tokens import Role


@dataclass(frozen=True)
class Rule:
    """The accepted pairs of what the certificate says and what the token says.

    A pair with role None needs no token: the certificate is enough, between services. A kind stands either
    with None or with roles, never with both.
    """

    allowed: frozenset[tuple[Kind, Role | None]]

    def admits_kind(self, kind: Kind) -> bool:
        """True if a certificate of this kind may call at all."""
        return any(kind is listed for listed, _ in self.allowed)

    def roles_for(self, kind: Kind) -> frozenset[Role]:
        """The roles of which this kind needs one; empty if its certificate is enough."""
        return frozenset(role for listed, role in self.allowed if listed is kind and role is not None)


def _only(*pairs: tuple[Kind, Role | None]) -> Rule:
    return Rule(frozenset(pairs))


_COORDINATOR = _only((Kind.COORDINATOR, None))
_PARTY = _only((Kind.PARTY, None))
_HOSPITAL = _only((Kind.HOSPITAL, Role.WORKER))
_SHARES = _only((Kind.HOSPITAL, Role.WORKER), (Kind.CLIENT, Role.SCIENTIST))
_SCIENTIST = _only((Kind.CLIENT, Role.SCIENTIST))
_SCIENTIST_OR_OPERATOR = _only((Kind.CLIENT, Role.SCIENTIST), (Kind.CLIENT, Role.OPERATOR))
_PREDICTION = _only((Kind.CLIENT, Role.SCIENTIST), (Kind.CLIENT, Role.CLINICIAN))
_CATALOGUE = _only(*((Kind.CLIENT, role) for role in (Role.SCIENTIST, Role.CLINICIAN, Role.OPERATOR)))
_POOL = _only((Kind.COORDINATOR, None), *((Kind.CLIENT, role) for role in (Role.SCIENTIST, Role.OPERATOR)))
_OWNER = _only((Kind.CLIENT, Role.OWNER))
_OPERATOR = _only((Kind.CLIENT, Role.OPERATOR))
_EVERYBODY = _only(*((kind, None) for kind in Kind))

ACCESS_POLICY: Mapping[str, Rule] = MappingProxyType(
    {
        "/trefoil.coordinator.v1.CoordinatorService/Attach": _HOSPITAL,
        "/trefoil.coordinator.v1.CoordinatorService/DescribeFederation": _CATALOGUE,
        "/trefoil.coordinator.v1.CoordinatorService/SearchDatasets": _CATALOGUE,
        "/trefoil.coordinator.v1.CoordinatorService/CreateStudy": _SCIENTIST,
        "/trefoil.coordinator.v1.CoordinatorService/StartStudy": _SCIENTIST,
        "/trefoil.coordinator.v1.CoordinatorService/GetStudy": _SCIENTIST_OR_OPERATOR,
        "/trefoil.coordinator.v1.CoordinatorService/ListStudies": _SCIENTIST_OR_OPERATOR,
        "/trefoil.coordinator.v1.CoordinatorService/CancelStudy": _SCIENTIST,
        "/trefoil.coordinator.v1.CoordinatorService/WatchStudy": _SCIENTIST_OR_OPERATOR,
        "/trefoil.coordinator.v1.CoordinatorService/ImportModel": _SCIENTIST,
        "/trefoil.coordinator.v1.CoordinatorService/ListModels": _CATALOGUE,
        "/trefoil.coordinator.v1.CoordinatorService/OpenPrediction": _PREDICTION,
        "/trefoil.party.v1.PartyService/RegisterModel": _COORDINATOR,
        "/trefoil.party.v1.PartyService/OpenRound": _COORDINATOR,
        "/trefoil.party.v1.PartyService/CloseRound": _COORDINATOR,
        "/trefoil.party.v1.PartyService/AbandonRound": _COORDINATOR,
        "/trefoil.party.v1.PartyService/OpenPrediction": _COORDINATOR,
        "/trefoil.party.v1.PartyService/DescribePool": _POOL,
        "/trefoil.party.v1.PartyService/PutShares": _SHARES,
        "/trefoil.party.v1.PartyService/GetShares": _SHARES,
        "/trefoil.party.v1.PartyService/Predict": _PREDICTION,
        "/trefoil.party.v1.PeerService/Exchange": _PARTY,
        "/trefoil.party.v1.PeerService/FetchModel": _PARTY,
        "/trefoil.hospital.v1.HospitalService/DescribeNode": _OWNER,
        "/trefoil.hospital.v1.HospitalService/PublishDataset": _OWNER,
        "/trefoil.hospital.v1.HospitalService/ListDatasets": _OWNER,
        "/trefoil.hospital.v1.HospitalService/WithdrawDataset": _OWNER,
        "/trefoil.hospital.v1.HospitalService/ListProposals": _OWNER,
        "/trefoil.hospital.v1.HospitalService/DecideProposal": _OWNER,
        "/grpc.health.v1.Health/Check": _EVERYBODY,
        "/grpc.health.v1.Health/List": _EVERYBODY,
        "/grpc.health.v1.Health/Watch": _EVERYBODY,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _OPERATOR,
    }
)
