"""The connection profile: who I am, and where those are that I talk to.

```toml
[tls]
certificate = "keys/tls.crt"
key = "keys/tls.key"
ca = "keys/ca.crt"

[coordinator]            # scientists and clinics
address = "127.0.0.1:7400"
token = "keys/federation.token"

[hospital]               # staff of a hospital
name = "north"
address = "127.0.0.1:7501"
token = "keys/hospital.token"     # or, for an account of the node: session = "hospital.session"
```
Paths are relative to the profile. `trefoil login` writes the session file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from libs.cli.client.saved_login import token_file_of
from libs.core.errors import FailedPrecondition, InvalidInput
from libs.rpc.settings import TlsSettings
from libs.runtime.settings import ServiceSettings, load_settings


class CoordinatorSection(ServiceSettings):
    """Where the coordinator is, and the file with the token that it and the parties accept."""

    address: str = Field(pattern=r"^.+:\d+$")
    token: Path


class HospitalSection(ServiceSettings):
    """The hospital node whose staff this is: with a token in a file, or with a login in `session`."""

    name: str
    address: str = Field(pattern=r"^.+:\d+$")
    token: Path | None = None
    session: Path | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.token is None) is (self.session is None):
            raise ValueError(
                "hospital needs either token (a file) or session (a file that trefoil login writes)"
            )
        return self

    @property
    def token_file(self) -> Path:
        """The file that calls read their token from."""
        if self.token is not None:
            return self.token
        assert self.session is not None
        return token_file_of(self.session)


class Profile(ServiceSettings):
    """A parsed profile, with absolute paths."""

    tls: TlsSettings
    coordinator: CoordinatorSection | None = None
    hospital: HospitalSection | None = None

    def need_coordinator(self) -> CoordinatorSection:
        """The [coordinator] section; says what to add when it is missing."""
        if self.coordinator is None:
            raise FailedPrecondition(
                "The profile has no [coordinator] section. Add its address and your federation token, "
                "or pass another profile with --profile."
            )
        return self.coordinator

    def need_hospital(self) -> HospitalSection:
        """The [hospital] section; says what to add when it is missing."""
        if self.hospital is None:
            raise FailedPrecondition(
                "The profile has no [hospital] section. Add your node's name and address, and token or "
                "session, or pass another profile with --profile."
            )
        return self.hospital


def load_profile(path: Path) -> Profile:
    """The profile at `path`. Raises `InvalidInput` when a file it names is missing."""
    profile = load_settings(Profile, path)
    sections = [section for section in (profile.coordinator, profile.hospital) if section is not None]
    if not sections:
        raise InvalidInput(
            f"The profile {path} names nobody to talk to. Add a [coordinator] section with address and token "
            "(scientists and clinics), or a [hospital] section with name, address and token (its staff)."
        )
    files = [
        profile.tls.certificate,
        profile.tls.key,
        profile.tls.ca,
        *[section.token for section in sections if section.token is not None],
    ]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InvalidInput(f"The profile {path} names files that do not exist: {', '.join(missing)}.")
    return profile
