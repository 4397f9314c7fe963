"""Who may call what: one line per RPC, by full method name. What is not listed is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from libs.rpc.identity import Kind
from libs.rpc.permissions import Permission, roles_with
from libs.rpc.tokens import Role


@dataclass(frozen=True)
class Rule:
    """The accepted pairs of what the certificate says and what the token says.

    A pair with role None needs no token: the certificate is enough, between services. A kind stands either
    with None or with roles, never with both. With a `permission`, somebody with the role `staff` needs that
    in addition, by what the node's accounts say at this moment.
    """

    allowed: frozenset[tuple[Kind, Role | None]]
    permission: Permission | None = None

    def admits_kind(self, kind: Kind) -> bool:
        """True if a certificate of this kind may call at all."""
        return any(kind is listed for listed, _ in self.allowed)

    def roles_for(self, kind: Kind) -> frozenset[Role]:
        """The roles of which this kind needs one; empty if its certificate is enough."""
        return frozenset(role for listed, role in self.allowed if listed is kind and role is not None)


def _only(*pairs: tuple[Kind, Role | None]) -> Rule:
    return Rule(frozenset(pairs))


def _staff(permission: Permission) -> Rule:
    """Accounts of the hospital that have the permission, and its own issuers' roles that come with it."""
    roles = {Role.STAFF} | roles_with(permission)
    return Rule(frozenset((Kind.CLIENT, role) for role in roles), permission)


_COORDINATOR = _only((Kind.COORDINATOR, None))
_PARTY = _only((Kind.PARTY, None))
_HOSPITAL = _only((Kind.HOSPITAL, Role.WORKER))
_SHARES = _only((Kind.HOSPITAL, Role.WORKER), (Kind.CLIENT, Role.SCIENTIST))
_SCIENTIST = _only((Kind.CLIENT, Role.SCIENTIST))
_SCIENTIST_OR_OPERATOR = _only((Kind.CLIENT, Role.SCIENTIST), (Kind.CLIENT, Role.OPERATOR))
_PREDICTION = _only((Kind.CLIENT, Role.SCIENTIST), (Kind.CLIENT, Role.CLINICIAN))
_CATALOGUE = _only(*((Kind.CLIENT, role) for role in (Role.SCIENTIST, Role.CLINICIAN, Role.OPERATOR)))
_POOL = _only((Kind.COORDINATOR, None), *((Kind.CLIENT, role) for role in (Role.SCIENTIST, Role.OPERATOR)))
_ANYBODY_WITHOUT_TOKEN = _only((Kind.CLIENT, None))
_AUDIT = Rule(
    _staff(Permission.AUDIT_READ).allowed | _only((Kind.CLIENT, Role.OPERATOR)).allowed, Permission.AUDIT_READ
)
_OPERATOR = _only((Kind.CLIENT, Role.OPERATOR))
_EVERYBODY = _only(*((kind, None) for kind in Kind))

ACCESS_POLICY: Mapping[str, Rule] = MappingProxyType(
    {
        "/trefoil.coordinator.v1.CoordinatorService/Attach": _HOSPITAL,
        "/trefoil.coordinator.v1.CoordinatorService/DescribeFederation": _CATALOGUE,
        "/trefoil.coordinator.v1.CoordinatorService/SearchDatasets": _CATALOGUE,
        "/trefoil.coordinator.v1.CoordinatorService/ListAssociations": _OPERATOR,
        "/trefoil.coordinator.v1.CoordinatorService/DecideAssociation": _OPERATOR,
        "/trefoil.coordinator.v1.CoordinatorService/RequestAccess": _PREDICTION,
        "/trefoil.coordinator.v1.CoordinatorService/ListAccessRequests": _CATALOGUE,
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
        "/trefoil.party.v1.PartyService/DescribeUpload": _SHARES,
        "/trefoil.party.v1.PartyService/GetShares": _SHARES,
        "/trefoil.party.v1.PartyService/Predict": _PREDICTION,
        "/trefoil.party.v1.PartyService/SetModelUse": _HOSPITAL,
        "/trefoil.party.v1.PartyService/DescribeModelUse": _HOSPITAL,
        "/trefoil.party.v1.PeerService/Exchange": _PARTY,
        "/trefoil.party.v1.PeerService/FetchModel": _PARTY,
        "/trefoil.party.v1.PeerService/UseModel": _PARTY,
        "/trefoil.hospital.v1.HospitalService/DescribeNode": _staff(Permission.NODE_READ),
        "/trefoil.hospital.v1.HospitalService/JoinFederation": _staff(Permission.NODE_MANAGE),
        "/trefoil.hospital.v1.HospitalService/LeaveFederation": _staff(Permission.NODE_MANAGE),
        "/trefoil.hospital.v1.HospitalService/PublishDataset": _staff(Permission.DATASETS_PUBLISH),
        "/trefoil.hospital.v1.HospitalService/InspectDataset": _staff(Permission.DATASETS_PUBLISH),
        "/trefoil.hospital.v1.HospitalService/ListDatasets": _staff(Permission.DATASETS_READ),
        "/trefoil.hospital.v1.HospitalService/ListDatasetVersions": _staff(Permission.DATASETS_READ),
        "/trefoil.hospital.v1.HospitalService/WithdrawDataset": _staff(Permission.DATASETS_PUBLISH),
        "/trefoil.hospital.v1.AccessService/ListRequests": _staff(Permission.REQUESTS_READ),
        "/trefoil.hospital.v1.AccessService/GetRequest": _staff(Permission.REQUESTS_READ),
        "/trefoil.hospital.v1.AccessService/CreateRequest": _staff(Permission.REQUESTS_CREATE),
        "/trefoil.hospital.v1.AccessService/DecideRequest": _staff(Permission.REQUESTS_DECIDE),
        "/trefoil.hospital.v1.AccessService/RevokeApproval": _staff(Permission.REQUESTS_DECIDE),
        "/trefoil.hospital.v1.AccessService/ListRules": _staff(Permission.REQUESTS_READ),
        "/trefoil.hospital.v1.AccessService/AddRule": _staff(Permission.REQUESTS_DECIDE),
        "/trefoil.hospital.v1.AccessService/RevokeRule": _staff(Permission.REQUESTS_DECIDE),
        "/trefoil.hospital.v1.AccessService/SetBudget": _staff(Permission.BUDGET_SET),
        "/trefoil.hospital.v1.AccessService/ReadLedger": _staff(Permission.LEDGER_READ),
        "/trefoil.hospital.v1.AccessService/ReleaseStatistics": _staff(Permission.STATISTICS_RELEASE),
        "/trefoil.hospital.v1.AccountService/ClaimNode": _ANYBODY_WITHOUT_TOKEN,
        "/trefoil.hospital.v1.AccountService/AcceptInvitation": _ANYBODY_WITHOUT_TOKEN,
        "/trefoil.hospital.v1.AccountService/LogIn": _ANYBODY_WITHOUT_TOKEN,
        "/trefoil.hospital.v1.AccountService/RefreshSession": _ANYBODY_WITHOUT_TOKEN,
        "/trefoil.hospital.v1.AccountService/WhoAmI": _staff(Permission.ACCOUNT),
        "/trefoil.hospital.v1.AccountService/LogOut": _staff(Permission.ACCOUNT),
        "/trefoil.hospital.v1.AccountService/ListSessions": _staff(Permission.ACCOUNT),
        "/trefoil.hospital.v1.AccountService/EndSession": _staff(Permission.ACCOUNT),
        "/trefoil.hospital.v1.AccountService/ChangePassword": _staff(Permission.ACCOUNT),
        "/trefoil.hospital.v1.AccountService/BeginSecondFactor": _staff(Permission.ACCOUNT),
        "/trefoil.hospital.v1.AccountService/ConfirmSecondFactor": _staff(Permission.ACCOUNT),
        "/trefoil.hospital.v1.AccountService/RemoveSecondFactor": _staff(Permission.ACCOUNT),
        "/trefoil.hospital.v1.AccountService/ListUsers": _staff(Permission.USERS_READ),
        "/trefoil.hospital.v1.AccountService/InviteUser": _staff(Permission.USERS_MANAGE),
        "/trefoil.hospital.v1.AccountService/ChangeUser": _staff(Permission.USERS_MANAGE),
        "/trefoil.hospital.v1.AccountService/ResetUser": _staff(Permission.USERS_MANAGE),
        "/trefoil.hospital.v1.AccountService/TransferOwnership": _staff(Permission.OWNERSHIP),
        "/trefoil.hospital.v1.AccountService/ListRoles": _staff(Permission.USERS_READ),
        "/trefoil.hospital.v1.AccountService/SaveRole": _staff(Permission.ROLES_MANAGE),
        "/trefoil.hospital.v1.AccountService/RemoveRole": _staff(Permission.ROLES_MANAGE),
        "/trefoil.hospital.v1.AccountService/ListGroups": _staff(Permission.USERS_READ),
        "/trefoil.hospital.v1.AccountService/SaveGroup": _staff(Permission.ROLES_MANAGE),
        "/trefoil.hospital.v1.AccountService/RemoveGroup": _staff(Permission.ROLES_MANAGE),
        "/trefoil.audit.v1.AuditService/ExportTrail": _AUDIT,
        "/grpc.health.v1.Health/Check": _EVERYBODY,
        "/grpc.health.v1.Health/List": _EVERYBODY,
        "/grpc.health.v1.Health/Watch": _EVERYBODY,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _OPERATOR,
    }
)
