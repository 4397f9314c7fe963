"""The part of a service's settings that its server needs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from libs.rpc.identity import TlsFiles
from libs.rpc.interceptors.authorisation import Grants
from libs.rpc.interceptors.refusal import OnRefusal, nobody_listens
from libs.rpc.recorder import Recorder
from libs.rpc.server import RpcServer
from libs.rpc.token_checks.gate import IssuerCheck, TokenGate
from libs.rpc.token_settings import (
    TokenIntrospectionSettings,
    TokenKeySettings,
    TokenSecretSettings,
    token_gate,
)
from libs.runtime.settings import ServiceSettings


class TlsSettings(ServiceSettings):
    """Where the certificate, its private key and the CA's certificate are."""

    certificate: Path
    key: Path
    ca: Path

    @property
    def files(self) -> TlsFiles:
        """The same, as channels and servers take it."""
        return TlsFiles(certificate=self.certificate, key=self.key, ca=self.ca)


class RpcSettings(ServiceSettings):
    """Base of the settings of every service with a server."""

    listen: str
    tls: TlsSettings
    token_secrets: tuple[TokenSecretSettings, ...]
    token_keys: tuple[TokenKeySettings, ...] = ()
    token_introspection: tuple[TokenIntrospectionSettings, ...] = ()
    token_revocations: Path | None = None
    token_uses: Path | None = None
    reflection: bool = False
    record_received_to: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    def token_gate(self, accounts: IssuerCheck | None = None) -> TokenGate:
        """Reads secrets and keys. InvalidInput if one is unreadable, too weak, or contradicts another.

        Unavailable if the record of used tokens cannot be opened.
        """
        return token_gate(
            self.token_secrets,
            self.token_keys,
            self.token_introspection,
            own=() if accounts is None else (accounts,),
            revocations=self.token_revocations,
            uses=self.token_uses,
        )

    def recorder(self) -> Recorder | None:
        """The recorder that the settings ask for; FailedPrecondition outside of tests."""
        return None if self.record_received_to is None else Recorder(self.record_received_to)

    def server(
        self,
        *,
        name: str,
        recorder: Recorder | None,
        accounts: IssuerCheck | None = None,
        grants: Grants | None = None,
        on_refusal: OnRefusal = nobody_listens,
    ) -> RpcServer:
        """The server that these settings describe.

        `recorder` is one for the whole process, channels included. `accounts` checks the tokens that this
        service itself issues to its staff, and `grants` says what they may do. `on_refusal` hears of every
        call that is refused.
        """
        return RpcServer(
            name=name,
            listen=self.listen,
            tls=self.tls.files,
            tokens=self.token_gate(accounts),
            reflection=self.reflection,
            recorder=recorder,
            grants=grants,
            on_refusal=on_refusal,
        )
