"""Every RPC of every service, and who is let in: written by hand, for people to read.

One line per RPC: its name, then for each kind of certificate the roles whose tokens open it. `-` stands for no
token: the certificate is enough. The last column is the permission that an account of the hospital needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from libs.rpc.identity import Kind
from libs.rpc.permissions import Permission
from libs.rpc.tokens import Role

COORDINATOR, PARTY, HOSPITAL = "coordinator", "party-0", "hospital-alpha"

_EVERYBODY = "coordinator:- party:- hospital:- client:-"
_STAFF = "owner"
_ALL_STAFF = "owner,administrator,compliance_officer,scientist,clinician,auditor"

_TABLES = {
    COORDINATOR: f"""
trefoil.coordinator.v1.CoordinatorService/Attach                hospital:worker
trefoil.coordinator.v1.CoordinatorService/DescribeFederation    client:scientist,clinician,operator
trefoil.coordinator.v1.CoordinatorService/SearchDatasets        client:scientist,clinician,operator
trefoil.coordinator.v1.CoordinatorService/ListAssociations      client:operator
trefoil.coordinator.v1.CoordinatorService/DecideAssociation     client:operator
trefoil.coordinator.v1.CoordinatorService/RequestAccess         client:scientist,clinician
trefoil.coordinator.v1.CoordinatorService/ListAccessRequests    client:scientist,clinician,operator
trefoil.coordinator.v1.CoordinatorService/CreateStudy           client:scientist
trefoil.coordinator.v1.CoordinatorService/StartStudy            client:scientist
trefoil.coordinator.v1.CoordinatorService/GetStudy              client:scientist,operator
trefoil.coordinator.v1.CoordinatorService/ListStudies           client:scientist,operator
trefoil.coordinator.v1.CoordinatorService/CancelStudy           client:scientist
trefoil.coordinator.v1.CoordinatorService/WatchStudy            client:scientist,operator
trefoil.coordinator.v1.CoordinatorService/ImportModel           client:scientist
trefoil.coordinator.v1.CoordinatorService/ListModels            client:scientist,clinician,operator
trefoil.coordinator.v1.CoordinatorService/OpenPrediction        client:scientist,clinician
trefoil.audit.v1.AuditService/ExportTrail                       client:operator,auditor,owner,compliance_officer
grpc.health.v1.Health/Check                                     {_EVERYBODY}
grpc.health.v1.Health/List                                      {_EVERYBODY}
grpc.health.v1.Health/Watch                                     {_EVERYBODY}
grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo   client:operator
""",
    PARTY: f"""
trefoil.party.v1.PartyService/RegisterModel                     coordinator:-
trefoil.party.v1.PartyService/OpenRound                         coordinator:-
trefoil.party.v1.PartyService/CloseRound                        coordinator:-
trefoil.party.v1.PartyService/AbandonRound                      coordinator:-
trefoil.party.v1.PartyService/OpenPrediction                    coordinator:-
trefoil.party.v1.PartyService/DescribePool                      coordinator:- client:scientist,operator
trefoil.party.v1.PartyService/PutShares                         hospital:worker client:scientist
trefoil.party.v1.PartyService/GetShares                         hospital:worker client:scientist
trefoil.party.v1.PartyService/Predict                           client:scientist,clinician
trefoil.party.v1.PartyService/SetModelUse                       hospital:worker
trefoil.party.v1.PartyService/DescribeModelUse                  hospital:worker
trefoil.party.v1.PeerService/Exchange                           party:-
trefoil.party.v1.PeerService/FetchModel                         party:-
trefoil.audit.v1.AuditService/ExportTrail                       client:operator,auditor,owner,compliance_officer
grpc.health.v1.Health/Check                                     {_EVERYBODY}
grpc.health.v1.Health/List                                      {_EVERYBODY}
grpc.health.v1.Health/Watch                                     {_EVERYBODY}
grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo   client:operator
""",
    HOSPITAL: f"""
trefoil.hospital.v1.HospitalService/DescribeNode                client:{_ALL_STAFF} node.read
trefoil.hospital.v1.HospitalService/JoinFederation              client:owner,administrator node.manage
trefoil.hospital.v1.HospitalService/LeaveFederation             client:owner,administrator node.manage
trefoil.hospital.v1.HospitalService/PublishDataset              client:owner datasets.publish
trefoil.hospital.v1.HospitalService/ListDatasets                client:owner,administrator,compliance_officer,scientist,auditor datasets.read
trefoil.hospital.v1.HospitalService/ListDatasetVersions         client:owner,administrator,compliance_officer,scientist,auditor datasets.read
trefoil.hospital.v1.HospitalService/WithdrawDataset             client:owner datasets.publish
trefoil.hospital.v1.AccessService/ListRequests                  client:owner,compliance_officer,auditor requests.read
trefoil.hospital.v1.AccessService/GetRequest                    client:owner,compliance_officer,auditor requests.read
trefoil.hospital.v1.AccessService/CreateRequest                 client:owner,scientist requests.create
trefoil.hospital.v1.AccessService/DecideRequest                 client:owner,compliance_officer requests.decide
trefoil.hospital.v1.AccessService/RevokeApproval                client:owner,compliance_officer requests.decide
trefoil.hospital.v1.AccessService/ListRules                     client:owner,compliance_officer,auditor requests.read
trefoil.hospital.v1.AccessService/AddRule                       client:owner,compliance_officer requests.decide
trefoil.hospital.v1.AccessService/RevokeRule                    client:owner,compliance_officer requests.decide
trefoil.hospital.v1.AccessService/SetBudget                     client:owner,compliance_officer budget.set
trefoil.hospital.v1.AccessService/ReadLedger                    client:owner,compliance_officer,auditor ledger.read
trefoil.hospital.v1.AccessService/ReleaseStatistics             client:owner,scientist statistics.release
trefoil.hospital.v1.AccountService/ClaimNode                    client:-
trefoil.hospital.v1.AccountService/AcceptInvitation             client:-
trefoil.hospital.v1.AccountService/LogIn                        client:-
trefoil.hospital.v1.AccountService/RefreshSession               client:-
trefoil.hospital.v1.AccountService/WhoAmI                       client:{_ALL_STAFF} account
trefoil.hospital.v1.AccountService/LogOut                       client:{_ALL_STAFF} account
trefoil.hospital.v1.AccountService/ListSessions                 client:{_ALL_STAFF} account
trefoil.hospital.v1.AccountService/EndSession                   client:{_ALL_STAFF} account
trefoil.hospital.v1.AccountService/ChangePassword               client:{_ALL_STAFF} account
trefoil.hospital.v1.AccountService/BeginSecondFactor            client:{_ALL_STAFF} account
trefoil.hospital.v1.AccountService/ConfirmSecondFactor          client:{_ALL_STAFF} account
trefoil.hospital.v1.AccountService/RemoveSecondFactor           client:{_ALL_STAFF} account
trefoil.hospital.v1.AccountService/ListUsers                    client:owner,administrator,compliance_officer,auditor users.read
trefoil.hospital.v1.AccountService/InviteUser                   client:owner,administrator users.manage
trefoil.hospital.v1.AccountService/ChangeUser                   client:owner,administrator users.manage
trefoil.hospital.v1.AccountService/ResetUser                    client:owner,administrator users.manage
trefoil.hospital.v1.AccountService/TransferOwnership            client:owner ownership
trefoil.hospital.v1.AccountService/ListRoles                    client:owner,administrator,compliance_officer,auditor users.read
trefoil.hospital.v1.AccountService/SaveRole                     client:owner,administrator roles.manage
trefoil.hospital.v1.AccountService/RemoveRole                   client:owner,administrator roles.manage
trefoil.hospital.v1.AccountService/ListGroups                   client:owner,administrator,compliance_officer,auditor users.read
trefoil.hospital.v1.AccountService/SaveGroup                    client:owner,administrator roles.manage
trefoil.hospital.v1.AccountService/RemoveGroup                  client:owner,administrator roles.manage
trefoil.audit.v1.AuditService/ExportTrail                       client:operator,auditor,owner,compliance_officer audit.read
grpc.health.v1.Health/Check                                     {_EVERYBODY}
grpc.health.v1.Health/List                                      {_EVERYBODY}
grpc.health.v1.Health/Watch                                     {_EVERYBODY}
grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo   client:operator
""",
}


@dataclass(frozen=True)
class Row:
    """One RPC of one service, and who is let in."""

    service: str
    method: str
    admitted: frozenset[tuple[Kind, Role | None]]
    permission: Permission | None

    def needs_token(self, kind: Kind) -> bool:
        """Whether a certificate of this kind opens it with a token only."""
        return any(listed is kind and role is not None for listed, role in self.admitted)

    def without_token(self, kind: Kind) -> bool:
        """Whether the certificate is enough."""
        return (kind, None) in self.admitted


def _row(service: str, line: str) -> Row:
    method, *columns = line.split()
    admitted: set[tuple[Kind, Role | None]] = set()
    permission = None
    for column in columns:
        kind, colon, roles = column.partition(":")
        if not colon:
            permission = Permission(column)
            continue
        admitted |= {(Kind(kind), None if role == "-" else Role(role)) for role in roles.split(",")}
    return Row(service, f"/{method}", frozenset(admitted), permission)


ROWS = tuple(
    _row(service, line) for service, table in _TABLES.items() for line in table.strip().splitlines()
)
