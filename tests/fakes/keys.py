"""Keys that `create_keys` made, by whom they belong to."""

from __future__ import annotations

from pathlib import Path

from libs.rpc.dev_ca import folder_name
from libs.rpc.identity import Identity, TlsFiles


def tls_files(keys: Path, identity: Identity) -> TlsFiles:
    """The certificate and key of `identity`."""
    folder = keys / folder_name(identity)
    return TlsFiles(certificate=folder / "tls.crt", key=folder / "tls.key", ca=folder / "ca.crt")
