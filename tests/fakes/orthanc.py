"""A real DICOM archive that nobody here wrote: Debian's Orthanc with its DICOMweb plugin, on loopback.

In plain text: Orthanc 1.10.1 of Debian 12 crashes at the first TLS handshake. `behind_tls` is the proxy that
an archive has in front of it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "node", "correct horse"
_START_S = 60.0


@dataclass(frozen=True)
class Orthanc:
    """`url` is the root of its DICOMweb services."""

    url: str

    def upload(self, file: Path) -> None:
        """Store a file, as a modality would."""
        self._client().post("/instances", content=file.read_bytes()).raise_for_status()

    def _client(self) -> httpx.Client:
        root = self.url.removesuffix("/dicom-web")
        return httpx.Client(base_url=root, auth=(USER, PASSWORD), trust_env=False)


@contextmanager
def orthanc_server() -> Iterator[Orthanc]:
    """An empty archive. Skips without Orthanc."""
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        pytest.skip("Orthanc is not installed. On Debian: apt-get install orthanc orthanc-dicomweb")
    with tempfile.TemporaryDirectory(prefix="trefoil-orthanc-") as place, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        settings = {
            "StorageDirectory": place,
            "IndexDirectory": place,
            "Plugins": [str(PLUGIN)],
            "HttpPort": port,
            "HttpBindAddresses": ["127.0.0.1"],
            "RemoteAccessAllowed": True,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomServerEnabled": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        file = Path(place) / "orthanc.json"
        file.write_text(json.dumps(settings))
        process = subprocess.Popen(
            ["Orthanc", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        server = Orthanc(url=f"http://127.0.0.1:{port}/dicom-web")
        try:
            _wait(server, process)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=30)


@asynccontextmanager
async def behind_tls(server: Orthanc, certificate: Path, key: Path) -> AsyncIterator[str]:
    """The URL of the archive behind a proxy with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    port = int(server.url.removesuffix("/dicom-web").rpartition(":")[2])

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, inner[1]), copy(inner[0], writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0, ssl=context) as proxy:
        yield f"https://127.0.0.1:{proxy.sockets[0].getsockname()[1]}/dicom-web"


def _wait(server: Orthanc, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        assert process.poll() is None, "Orthanc ended while it started"
        try:
            server._client().get("/dicom-web/studies").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError("Orthanc did not start in time")
