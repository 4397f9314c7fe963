"""Every RPC of every service, and who is let in: written by hand, for people to read.

One line per RPC: its name, then for each kind of certificate the roles whose tokens open it. `-` stands for
no token: the certificate is enough. The last column is the permission that an account of the hospital needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from libs.rpc.identity import Kind
from libs.rpc.permissions import Permission
from libs.rpc.tokens import Role

COORDINATOR, PARTY, HOSPITAL = "coordinator", "party-0", "hospital-alpha"

PACKAGES = {
    "CoordinatorService": "trefoil.coordinator.v1",
    "PartyService": "trefoil.party.v1",
    "PeerService": "trefoil.party.v1",
    "HospitalService": "trefoil.hospital.v1",
    "AccessService": "trefoil.hospital.v1",
    "AccountService": "trefoil.hospital.v1",
    "AuditService": "trefoil.audit.v1",
    "Health": "grpc.health.v1",
    "ServerReflection": "grpc.reflection.v1alpha",
}

_EVERYBODY = "coordinator:- party:- hospital:- client:-"
_SEEING_DATA = "owner,administrator,compliance_officer,scientist,auditor"
_ALL_STAFF = "owner,administrator,compliance_officer,scientist,clinician,auditor"

_TABLES = {
    COORDINATOR: f"""
CoordinatorService/Attach               hospital:worker
CoordinatorService/DescribeFederation   client:scientist,clinician,operator
CoordinatorService/SearchDatasets       client:scientist,clinician,operator
CoordinatorService/ListAssociations     client:operator
CoordinatorService/DecideAssociation    client:operator
CoordinatorService/RequestAccess        client:scientist,clinician
CoordinatorService/ListAccessRequests   client:scientist,clinician,operator
CoordinatorService/CreateStudy          client:scientist
CoordinatorService/StartStudy           client:scientist
CoordinatorService/GetStudy             client:scientist,operator
CoordinatorService/ListStudies          client:scientist,operator
CoordinatorService/CancelStudy          client:scientist
CoordinatorService/WatchStudy           client:scientist,operator
CoordinatorService/ImportModel          client:scientist
CoordinatorService/ListModels           client:scientist,clinician,operator
CoordinatorService/OpenPrediction       client:scientist,clinician
AuditService/ExportTrail                client:operator,auditor,owner,compliance_officer
Health/Check                            {_EVERYBODY}
Health/List                             {_EVERYBODY}
Health/Watch                            {_EVERYBODY}
ServerReflection/ServerReflectionInfo   client:operator
""",
    PARTY: f"""
PartyService/RegisterModel              coordinator:-
PartyService/OpenRound                  coordinator:-
PartyService/CloseRound                 coordinator:-
PartyService/AbandonRound               coordinator:-
PartyService/OpenPrediction             coordinator:-
PartyService/DescribePool               coordinator:- client:scientist,operator
PartyService/PutShares                  hospital:worker client:scientist
PartyService/DescribeUpload             hospital:worker client:scientist
PartyService/GetShares                  hospital:worker client:scientist
PartyService/Predict                    client:scientist,clinician
PartyService/SetModelUse                hospital:worker
PartyService/DescribeModelUse           hospital:worker
PeerService/Exchange                    party:-
PeerService/FetchModel                  party:-
PeerService/UseModel                    party:-
AuditService/ExportTrail                client:operator,auditor,owner,compliance_officer
Health/Check                            {_EVERYBODY}
Health/List                             {_EVERYBODY}
Health/Watch                            {_EVERYBODY}
ServerReflection/ServerReflectionInfo   client:operator
""",
    HOSPITAL: f"""
HospitalService/DescribeNode            client:{_ALL_STAFF} node.read
HospitalService/JoinFederation          client:owner,administrator node.manage
HospitalService/LeaveFederation         client:owner,administrator node.manage
HospitalService/PublishDataset          client:owner datasets.publish
HospitalService/InspectDataset          client:owner datasets.publish
HospitalService/ListDatasets            client:{_SEEING_DATA} datasets.read
HospitalService/ListDatasetVersions     client:{_SEEING_DATA} datasets.read
HospitalService/WithdrawDataset         client:owner datasets.publish
AccessService/ListRequests              client:owner,compliance_officer,auditor requests.read
AccessService/GetRequest                client:owner,compliance_officer,auditor requests.read
AccessService/CreateRequest             client:owner,scientist requests.create
AccessService/DecideRequest             client:owner,compliance_officer requests.decide
AccessService/RevokeApproval            client:owner,compliance_officer requests.decide
AccessService/ListRules                 client:owner,compliance_officer,auditor requests.read
AccessService/AddRule                   client:owner,compliance_officer requests.decide
AccessService/RevokeRule                client:owner,compliance_officer requests.decide
AccessService/SetBudget                 client:owner,compliance_officer budget.set
AccessService/ReadLedger                client:owner,compliance_officer,auditor ledger.read
AccessService/ReleaseStatistics         client:owner,scientist statistics.release
AccountService/ClaimNode                client:-
AccountService/AcceptInvitation         client:-
AccountService/LogIn                    client:-
AccountService/RefreshSession           client:-
AccountService/WhoAmI                   client:{_ALL_STAFF} account
AccountService/LogOut                   client:{_ALL_STAFF} account
AccountService/ListSessions             client:{_ALL_STAFF} account
AccountService/EndSession               client:{_ALL_STAFF} account
AccountService/ChangePassword           client:{_ALL_STAFF} account
AccountService/BeginSecondFactor        client:{_ALL_STAFF} account
AccountService/ConfirmSecondFactor      client:{_ALL_STAFF} account
AccountService/RemoveSecondFactor       client:{_ALL_STAFF} account
AccountService/ListUsers                client:owner,administrator,compliance_officer,auditor users.read
AccountService/InviteUser               client:owner,administrator users.manage
AccountService/ChangeUser               client:owner,administrator users.manage
AccountService/ResetUser                client:owner,administrator users.manage
AccountService/TransferOwnership        client:owner ownership
AccountService/ListRoles                client:owner,administrator,compliance_officer,auditor users.read
AccountService/SaveRole                 client:owner,administrator roles.manage
AccountService/RemoveRole               client:owner,administrator roles.manage
AccountService/ListGroups               client:owner,administrator,compliance_officer,auditor users.read
AccountService/SaveGroup                client:owner,administrator roles.manage
AccountService/RemoveGroup              client:owner,administrator roles.manage
AuditService/ExportTrail                client:operator,auditor,owner,compliance_officer audit.read
Health/Check                            {_EVERYBODY}
Health/List                             {_EVERYBODY}
Health/Watch                            {_EVERYBODY}
ServerReflection/ServerReflectionInfo   client:operator
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
    package = PACKAGES[method.partition("/")[0]]
    return Row(service, f"/{package}.{method}", frozenset(admitted), permission)


ROWS = tuple(_row(service, line) for service, table in _TABLES.items() for line in table.strip().splitlines())
