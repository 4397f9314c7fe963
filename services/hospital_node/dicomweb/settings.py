"""Which archives a node may fetch from. Its operator names them; staff choose one by name."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from libs.runtime.settings import ServiceSettings


class DicomWebSettings(ServiceSettings):
    """One DICOMweb server, its credentials by path, and how much is taken from it."""

    url: str = Field(description="https://host/root of its services, without a trailing slash")
    ca: Path | None = Field(default=None, description="CA certificate that alone counts; else the system's")
    username: str = Field(default="", description="for HTTP Basic, with password_file")
    password_file: Path | None = None
    token_file: Path | None = Field(default=None, description="bearer token, in place of a user's name")
    plaintext_on_loopback: bool = Field(
        default=False, description="http is allowed, to this machine's own loopback address only"
    )
    timeout_s: float = Field(default=30, gt=0, le=600, description="without a byte from the server")
    image_timeout_s: float = Field(default=300, gt=0, le=3600, description="for one whole answer")
    attempts: int = Field(default=4, ge=1, le=10, description="of each request that fails by the network")
    page_size: int = Field(default=100, ge=1, le=1000, description="entries asked for at once")
    max_images: int = Field(default=100_000, ge=1, description="in one data set")
    max_total_bytes: int = Field(default=200 * 2**30, ge=1, description="on disk, for one data set")

    @model_validator(mode="after")
    def _reachable_safely(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or self.url.endswith("/"):
            raise ValueError("url is https://host[:port]/root, without a trailing slash")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("url holds no name, password, query or fragment; credentials are files")
        if parts.scheme == "http" and not (self.plaintext_on_loopback and _is_loopback(parts.hostname)):
            raise ValueError(
                "patients' images do not travel over http; use https, or plaintext_on_loopback for 127.0.0.1"
            )
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("username and password_file belong together")
        if self.username and self.token_file is not None:
            raise ValueError("either a user with password or a token, not both")
        return self


def _is_loopback(host: str) -> bool:
    """An address, not a name: a name's meaning can change."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
