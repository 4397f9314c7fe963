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
token = "keys/hospital.token"
```
Paths are relative to the profile.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.rpc.settings import TlsSettings
from libs.runtime.settings import ServiceSettings, load_settings


class CoordinatorSection(ServiceSettings):
    """Where the coordinator is, and the file with the token that it and the parties accept."""

    address: str = Field(pattern=r"^.+:\d+$")
    token: Path


class HospitalSection(ServiceSettings):
    """The hospital node whose staff this is."""

    name: str
    address: str = Field(pattern=r"^.+:\d+$")
    token: Path


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
                "The profile has no [hospital] section. Add your node's name and address and your staff "
                "token, or pass another profile with --profile."
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
        *[section.token for section in sections],
    ]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InvalidInput(f"The profile {path} names files that do not exist: {', '.join(missing)}.")
    return profile
