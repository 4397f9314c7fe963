"""Credentials for both ends of a connection. There is no function that makes a connection without them."""

from __future__ import annotations

from pathlib import Path

import grpc

from libs.core.errors import InvalidInput
from libs.rpc.identity import TlsFiles
from libs.runtime.private_files import require_private


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that show our certificate and demand one of the same CA from every client."""
    ca, key, certificate = _read(files)
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials that show our certificate and trust only servers of the same CA."""
    ca, key, certificate = _read(files)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)


def _read(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    """(CA, private key, certificate), PEM.

    GRPC's own errors for a wrong file say nothing, so it is checked here.
    """
    return (
        _pem(files.ca, "CERTIFICATE"),
        _pem(files.key, "PRIVATE KEY", private=True),
        _pem(files.certificate, "CERTIFICATE"),
    )


def _pem(path: Path, label: str, *, private: bool = False) -> bytes:
    try:
        if private:
            require_private(path)
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"The file {path} cannot be read: {error.strerror}. Make keys with: trefoil keys init"
        ) from error
    if f"-----BEGIN {label}-----".encode() not in content:
        raise InvalidInput(f"The file {path} holds no PEM {label.lower()}. Make keys with: trefoil keys init")
    return content
