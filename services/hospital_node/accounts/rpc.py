"""AccountService: parses requests, names the actor, and keeps the answers of requests with an id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy.orm import Session

from libs.core.clock import Clock
from libs.core.errors import InvalidInput, Unauthenticated
from libs.core.secret import Secret
from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb
from libs.rpc._generated.trefoil.hospital.v1.accounts_pb2_grpc import AccountServiceServicer
from libs.rpc.caller import current_caller
from libs.rpc.permissions import DESCRIPTIONS
from libs.rpc.token_checks.binding import thumbprint
from services.hospital_node.accounts.actors import actor_of, require_account
from services.hospital_node.accounts.domain import Actor, can_be_name
from services.hospital_node.accounts.invitations import Invitations
from services.hospital_node.accounts.messages import (
    group_message,
    invitation_message,
    role_message,
    session_message,
    tokens_message,
    user_message,
)
from services.hospital_node.accounts.own_account import OwnAccount
from services.hospital_node.accounts.roles import Roles
from services.hospital_node.accounts.sessions import Sessions
from services.hospital_node.accounts.signing_in import SigningIn
from services.hospital_node.accounts.tokens import Client, session_of
from services.hospital_node.accounts.users import Users
from services.hospital_node.adapters.account_store import AccountStore
from services.hospital_node.adapters.answers import once
from services.hospital_node.adapters.role_store import RoleStore
from services.hospital_node.adapters.transactions import Transactions

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True)
class Accounts:
    """All that the service leads to."""

    transactions: Transactions
    signing_in: SigningIn
    sessions: Sessions
    invitations: Invitations
    own_account: OwnAccount
    users: Users
    roles: Roles
    clock: Clock


class AccountService(AccountServiceServicer):
    """Who may call what is in the access policy; what they may do to whom, in `users` and `roles`."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    # ---------------------------------------------------------------- without a token

    async def ClaimNode(self, request: pb.ClaimNodeRequest, context: Any) -> pb.ClaimNodeResponse:
        """The node's first account, its owner."""
        issued = await self._accounts.invitations.claim(
            request.code,
            name=request.name,
            full_name=request.full_name,
            password=Secret(request.password),
            client=_client(context),
        )
        user = await self._user(issued.account)
        return pb.ClaimNodeResponse(tokens=tokens_message(issued), user=user)

    async def AcceptInvitation(
        self, request: pb.AcceptInvitationRequest, context: Any
    ) -> pb.AcceptInvitationResponse:
        """The first password of an invited account, or the next one of a reset account."""
        issued = await self._accounts.invitations.accept(
            request.code, password=Secret(request.password), client=_client(context)
        )
        user = await self._user(issued.account)
        return pb.AcceptInvitationResponse(tokens=tokens_message(issued), user=user)

    async def LogIn(self, request: pb.LogInRequest, context: Any) -> pb.LogInResponse:
        """A session, or always the same refusal."""
        issued = await self._accounts.signing_in.log_in(
            request.name, Secret(request.password), request.second_factor, _client(context)
        )
        return pb.LogInResponse(tokens=tokens_message(issued))

    async def RefreshSession(
        self, request: pb.RefreshSessionRequest, context: Any
    ) -> pb.RefreshSessionResponse:
        """The next pair of tokens."""
        issued = await self._accounts.sessions.refresh(request.refresh_token, _client(context))
        return pb.RefreshSessionResponse(tokens=tokens_message(issued))

    # ---------------------------------------------------------------- one's own account

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:
        """Also for tokens of other issuers, which have a role and no account."""
        actor = await self._actor()
        if actor.account:
            user = await self._user(actor.account)
        else:
            token = current_caller().token
            user = pb.User() if token is None else pb.User(name=token.subject, roles=[token.role.value])
        return pb.WhoAmIResponse(user=user, permissions=sorted(actor.permissions))

    async def LogOut(self, request: pb.LogOutRequest, context: Any) -> pb.LogOutResponse:
        """The end of the session whose token this is."""
        actor = await self._actor()
        require_account(actor)
        await self._accounts.sessions.end(actor, _session_id())
        return pb.LogOutResponse()

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> pb.ListSessionsResponse:
        """The oldest first."""
        found = await self._accounts.sessions.listed(await self._actor(), request.user)
        current = _session_id()
        return pb.ListSessionsResponse(sessions=[session_message(one, current=current) for one in found])

    async def EndSession(self, request: pb.EndSessionRequest, context: Any) -> pb.EndSessionResponse:
        """For every call at once."""
        await self._accounts.sessions.end(await self._actor(), request.session_id)
        return pb.EndSessionResponse()

    async def ChangePassword(
        self, request: pb.ChangePasswordRequest, context: Any
    ) -> pb.ChangePasswordResponse:
        """Ends all other sessions of the account."""
        await self._accounts.own_account.change_password(
            await self._actor(),
            old=Secret(request.old_password),
            new=Secret(request.new_password),
            client=_client(context),
            session_id=_session_id(),
        )
        return pb.ChangePasswordResponse()

    async def BeginSecondFactor(
        self, request: pb.BeginSecondFactorRequest, context: Any
    ) -> pb.BeginSecondFactorResponse:
        """The URI for an authenticator app."""
        uri = await self._accounts.own_account.begin_second_factor(
            await self._actor(), Secret(request.password), _client(context)
        )
        return pb.BeginSecondFactorResponse(provisioning_uri=uri.expose())

    async def ConfirmSecondFactor(
        self, request: pb.ConfirmSecondFactorRequest, context: Any
    ) -> pb.ConfirmSecondFactorResponse:
        """From now on logins need a code."""
        await self._accounts.own_account.confirm_second_factor(await self._actor(), request.code)
        return pb.ConfirmSecondFactorResponse()

    async def RemoveSecondFactor(
        self, request: pb.RemoveSecondFactorRequest, context: Any
    ) -> pb.RemoveSecondFactorResponse:
        """Needs password and code."""
        await self._accounts.own_account.remove_second_factor(
            await self._actor(),
            password=Secret(request.password),
            code=request.code,
            client=_client(context),
        )
        return pb.RemoveSecondFactorResponse()

    # ---------------------------------------------------------------- accounts of others

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        """By name. A page's token is the last name on it."""
        if request.page_size > MAX_PAGE_SIZE:
            raise InvalidInput(f"A page has at most {MAX_PAGE_SIZE} accounts.")
        if request.page_token and not can_be_name(request.page_token):
            raise InvalidInput("The page token is not one that this list gave. Begin without one.")
        size, now = request.page_size or DEFAULT_PAGE_SIZE, self._accounts.clock.now()
        found = await self._accounts.transactions.run(
            lambda session: AccountStore(session).page(after=request.page_token, limit=size + 1)
        )
        return pb.ListUsersResponse(
            users=[user_message(account, now=now) for account in found[:size]],
            next_page_token=found[size - 1].name if len(found) > size else "",
        )

    async def InviteUser(self, request: pb.InviteUserRequest, context: Any) -> pb.InviteUserResponse:
        """A retry gets its answer without the code, which is stored nowhere."""

        def work(session: Session, actor: Actor) -> pb.InviteUserResponse:
            account, invitation = self._accounts.users.invite(
                session,
                actor,
                name=request.name,
                full_name=request.full_name,
                roles=request.roles,
                groups=request.groups,
            )
            user = user_message(account, now=self._accounts.clock.now())
            return pb.InviteUserResponse(user=user, invitation=invitation_message(invitation))

        hidden = ("invitation.code",)
        return await self._once(request, pb.InviteUserResponse, work, secret_in_answer=hidden)

    async def ChangeUser(self, request: pb.ChangeUserRequest, context: Any) -> pb.ChangeUserResponse:
        """Effective with the account's next call."""
        enabled = {pb.ChangeUserRequest.ACTIVITY_ENABLED: True, pb.ChangeUserRequest.ACTIVITY_DISABLED: False}

        def work(session: Session, actor: Actor) -> pb.ChangeUserResponse:
            account = self._accounts.users.change(
                session,
                actor,
                name=request.name,
                roles=request.roles if request.set_roles else None,
                groups=request.groups if request.set_groups else None,
                enabled=enabled.get(request.activity),
            )
            return pb.ChangeUserResponse(user=user_message(account, now=self._accounts.clock.now()))

        return await self._once(request, pb.ChangeUserResponse, work)

    async def ResetUser(self, request: pb.ResetUserRequest, context: Any) -> pb.ResetUserResponse:
        """A retry gets its answer without the code, which is stored nowhere."""

        def work(session: Session, actor: Actor) -> pb.ResetUserResponse:
            invitation = self._accounts.users.reset(session, actor, name=request.name)
            return pb.ResetUserResponse(invitation=invitation_message(invitation))

        hidden = ("invitation.code",)
        return await self._once(request, pb.ResetUserResponse, work, secret_in_answer=hidden)

    async def TransferOwnership(
        self, request: pb.TransferOwnershipRequest, context: Any
    ) -> pb.TransferOwnershipResponse:
        """The owner's password is asked for once more: a session that was left open is not enough."""
        actor = await self._actor()
        require_account(actor)
        await self._accounts.signing_in.confirm(actor, Secret(request.password), _client(context))

        def work(session: Session, actor: Actor) -> pb.TransferOwnershipResponse:
            self._accounts.users.transfer(session, actor, to=request.to)
            return pb.TransferOwnershipResponse()

        hidden = ("password",)
        return await self._once(request, pb.TransferOwnershipResponse, work, secret_in_request=hidden)

    async def ListRoles(self, request: pb.ListRolesRequest, context: Any) -> pb.ListRolesResponse:
        """Built-in ones first; and what every permission means."""
        found = await self._accounts.transactions.run(lambda session: RoleStore(session).roles())
        meanings = {permission.value: text for permission, text in DESCRIPTIONS.items()}
        return pb.ListRolesResponse(roles=[role_message(role) for role in found], permissions=meanings)

    async def SaveRole(self, request: pb.SaveRoleRequest, context: Any) -> pb.SaveRoleResponse:
        """A new role of the hospital's own, or what an old one allows from now on."""

        def work(session: Session, actor: Actor) -> pb.SaveRoleResponse:
            saved = self._accounts.roles.save_role(
                session,
                actor,
                name=request.role.name,
                description=request.role.description,
                permissions=request.role.permissions,
            )
            return pb.SaveRoleResponse(role=role_message(saved))

        return await self._once(request, pb.SaveRoleResponse, work)

    async def RemoveRole(self, request: pb.RemoveRoleRequest, context: Any) -> pb.RemoveRoleResponse:
        """Only a role that nobody has."""

        def work(session: Session, actor: Actor) -> pb.RemoveRoleResponse:
            self._accounts.roles.remove_role(session, actor, name=request.name)
            return pb.RemoveRoleResponse()

        return await self._once(request, pb.RemoveRoleResponse, work)

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Any) -> pb.ListGroupsResponse:
        """By name."""
        found = await self._accounts.transactions.run(lambda session: RoleStore(session).groups())
        return pb.ListGroupsResponse(groups=[group_message(group) for group in found])

    async def SaveGroup(self, request: pb.SaveGroupRequest, context: Any) -> pb.SaveGroupResponse:
        """A new group, or other roles and members of an old one."""

        def work(session: Session, actor: Actor) -> pb.SaveGroupResponse:
            saved = self._accounts.roles.save_group(
                session,
                actor,
                name=request.group.name,
                description=request.group.description,
                roles=request.group.roles,
                members=request.group.members,
            )
            return pb.SaveGroupResponse(group=group_message(saved))

        return await self._once(request, pb.SaveGroupResponse, work)

    async def RemoveGroup(self, request: pb.RemoveGroupRequest, context: Any) -> pb.RemoveGroupResponse:
        """Its members lose its roles."""

        def work(session: Session, actor: Actor) -> pb.RemoveGroupResponse:
            self._accounts.roles.remove_group(session, actor, name=request.name)
            return pb.RemoveGroupResponse()

        return await self._once(request, pb.RemoveGroupResponse, work)

    # ---------------------------------------------------------------- what they share

    async def _actor(self) -> Actor:
        caller = current_caller()
        return await self._accounts.transactions.run(lambda session: actor_of(session, caller))

    async def _user(self, name: str) -> pb.User:
        account = await self._accounts.transactions.run(lambda session: AccountStore(session).get(name))
        return user_message(account, now=self._accounts.clock.now())

    async def _once(
        self,
        request: Any,
        answer_type: type[Answer],
        work: Callable[[Session, Actor], Answer],
        *,
        secret_in_request: tuple[str, ...] = (),
        secret_in_answer: tuple[str, ...] = (),
    ) -> Answer:
        """Do it once for this caller and request id, with what the caller may do in that very transaction."""
        caller = current_caller()
        return await once(
            self._accounts.transactions,
            caller=caller.actor,
            request=request,
            answer_type=answer_type,
            work=lambda session: work(session, actor_of(session, caller)),
            now=self._accounts.clock.now(),
            secret_in_request=secret_in_request,
            secret_in_answer=secret_in_answer,
        )


def _client(context: Any) -> Client:
    """The certificate of the caller's connection, which mutual TLS has verified."""
    certificates = context.auth_context().get("x509_pem_cert", ())
    if len(certificates) != 1:
        raise Unauthenticated("Your connection shows no certificate that a session could be bound to.")
    return Client(current_caller().identity.uri, thumbprint(bytes(certificates[0])))


def _session_id() -> str:
    """The session of the caller's token; something that no session has for a token of another issuer."""
    token = current_caller().token
    return "" if token is None else session_of(token)
