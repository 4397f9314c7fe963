"""The accounts of a node, made and joined: for the running node, and for `trefoil hospital owner-code`."""

from __future__ import annotations

from dataclasses import dataclass

from libs.core.clock import Clock
from libs.runtime.audit.trail import AuditTrail
from services.hospital_node.accounts.invitations import Invitations
from services.hospital_node.accounts.keys import sealing_key, signing_key
from services.hospital_node.accounts.own_account import OwnAccount
from services.hospital_node.accounts.passwords import Passwords
from services.hospital_node.accounts.roles import Roles
from services.hospital_node.accounts.rpc import Accounts
from services.hospital_node.accounts.second_factor import SecondFactors
from services.hospital_node.accounts.sessions import Sessions
from services.hospital_node.accounts.signing_in import SigningIn
from services.hospital_node.accounts.tokens import AccessTokens
from services.hospital_node.accounts.users import Users
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.settings import HospitalSettings


@dataclass(frozen=True)
class NodeAccounts:
    """What the server needs: the service's parts, and the check of the tokens that they issue."""

    accounts: Accounts
    tokens: AccessTokens
    passwords: Passwords

    def close(self) -> None:
        """Let the threads that hash passwords end."""
        self.passwords.close()


def node_accounts(
    settings: HospitalSettings,
    *,
    transactions: Transactions,
    trail: AuditTrail,
    clock: Clock,
    passwords: Passwords | None = None,
) -> NodeAccounts:
    """Reads the node's keys for accounts, and makes them if there are none.

    InvalidInput for a file that is something else, or that everybody may read.
    """
    folder = settings.accounts_dir
    tokens = AccessTokens(hospital=settings.name, key=signing_key(folder / "signing.key"), clock=clock)
    factors = SecondFactors(hospital=settings.name, key=sealing_key(folder / "account.key"))
    passwords = passwords or Passwords()
    sessions = Sessions(
        transactions=transactions,
        trail=trail,
        tokens=tokens,
        clock=clock,
        idle=settings.session_idle,
        longest=settings.session_longest,
    )
    signing_in = SigningIn(
        transactions=transactions,
        trail=trail,
        passwords=passwords,
        factors=factors,
        sessions=sessions,
        clock=clock,
    )
    invitations = Invitations(
        transactions=transactions,
        trail=trail,
        passwords=passwords,
        sessions=sessions,
        clock=clock,
        hospital=settings.name,
        owner_code_file=folder / "owner.code",
    )
    own_account = OwnAccount(
        transactions=transactions,
        trail=trail,
        signing_in=signing_in,
        passwords=passwords,
        factors=factors,
        sessions=sessions,
        clock=clock,
        hospital=settings.name,
    )
    accounts = Accounts(
        transactions=transactions,
        signing_in=signing_in,
        sessions=sessions,
        invitations=invitations,
        own_account=own_account,
        users=Users(trail=trail, invitations=invitations, sessions=sessions, clock=clock),
        roles=Roles(trail=trail),
        clock=clock,
    )
    return NodeAccounts(accounts, tokens, passwords)
