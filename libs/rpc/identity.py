"""Who a process is: the URI in its certificate, parsed once and never compared as text."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from pathlib import Path

from libs.core.errors import InvalidInput

TRUST_DOMAIN = "trefoil.local"

_PREFIX = f"spiffe://{TRUST_DOMAIN}/"
# A DNS label, because the name becomes one: no dot, slash or upper case can smuggle in another identity.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_PARTY = re.compile(r"[012]", re.ASCII)


class Kind(enum.Enum):
    """What a process is in the federation."""

    COORDINATOR = "coordinator"
    PARTY = "party"
    HOSPITAL = "hospital"
    CLIENT = "client"


@dataclass(frozen=True)
class Identity:
    """One process, as its certificate names it. `name` is "" for the coordinator, "0" to "2" for a party."""

    kind: Kind
    name: str

    def __post_init__(self) -> None:
        pattern = {Kind.COORDINATOR: re.compile(""), Kind.PARTY: _PARTY}.get(self.kind, _NAME)
        if not pattern.fullmatch(self.name):
            raise InvalidInput(
                f"{self.name!r} cannot name a {self.kind.value}: a party is 0, 1 or 2, the coordinator has "
                "no name, and the others use up to 63 lower-case letters, digits and inner hyphens."
            )

    @property
    def uri(self) -> str:
        """`spiffe://trefoil.local/<kind>[/<name>]`; `parse` gives the identity back."""
        return _PREFIX + (f"{self.kind.value}/{self.name}" if self.name else self.kind.value)

    @property
    def dns_name(self) -> str:
        """What TLS compares with the server's certificate; one name per identity."""
        return (
            f"{self.name}.{self.kind.value}.{TRUST_DOMAIN}"
            if self.name
            else f"{self.kind.value}.{TRUST_DOMAIN}"
        )

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """The identity of a URI. InvalidInput for anything that `uri` does not write exactly so."""
        kind, _, name = uri.removeprefix(_PREFIX).partition("/")
        kinds = {member.value: member for member in Kind}
        if not uri.startswith(_PREFIX) or kind not in kinds:
            raise InvalidInput(f"{uri!r} is not an identity; expected {_PREFIX}<{'|'.join(kinds)}>[/<name>].")
        identity = cls(kinds[kind], name)
        if identity.uri != uri:
            raise InvalidInput(f"{uri!r} is not an identity; did you mean {identity.uri!r}?")
        return identity

    def __str__(self) -> str:
        return self.uri


COORDINATOR = Identity(Kind.COORDINATOR, "")


def party_identity(index: int) -> Identity:
    """The identity of compute party 0, 1 or 2."""
    return Identity(Kind.PARTY, str(index))


@dataclass(frozen=True)
class TlsFiles:
    """Where a process keeps its certificate, its private key, and the CA certificate it trusts (PEM)."""

    certificate: Path
    key: Path
    ca: Path
