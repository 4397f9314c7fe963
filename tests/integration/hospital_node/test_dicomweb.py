"""Images from a real archive: found in pages, fetched in streams, kept in the node's cache, read there."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from structlog.testing import capture_logs

from libs.core.errors import InvalidInput, PermissionDenied, TooLarge, TrefoilError, Unavailable
from libs.data.dataset import load_dataset
from services.hospital_node.dicomweb import client as client_module
from services.hospital_node.dicomweb.archives import Archives
from services.hospital_node.dicomweb.client import DicomWebClient
from services.hospital_node.dicomweb.settings import DicomWebSettings
from services.hospital_node.worker.datasets import Datasets
from tests.fakes.orthanc import PASSWORD, USER, Orthanc, behind_tls
from tests.fakes.token_services import loopback_certificate
from tests.unit.data.dicom_files import SHARED, chest, gradient, jpeg, write

CXR = SHARED.parent / "cxr" / "train"
SECRET = "CANARY5151"


@pytest.fixture(scope="module")
def orthanc(archive: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Orthanc:
    fill(archive, tmp_path_factory.mktemp("archive"))
    return archive


def pixels(i: int) -> np.ndarray:
    """A real radiograph where there are some, else a gradient."""
    files = sorted((CXR / "NORMAL").glob("*.jpeg")) if CXR.is_dir() else []
    return np.asarray(Image.open(files[i]).convert("L")) if files else gradient(seed=i)


STUDIES = [generate_uid() for _ in range(4)]
INSTANCES = [generate_uid() for _ in range(4)]


def image(i: int, **elements: Any) -> Any:
    """The image of study i; two patients have two studies each."""
    said = {
        "SOPInstanceUID": INSTANCES[i],
        "PatientID": f"{SECRET}-{i // 2}",
        "StudyInstanceUID": STUDIES[i],
        "SeriesInstanceUID": generate_uid(),
    }
    data = chest(pixels(i), **(said | elements))
    data.PatientName = f"{SECRET}^Jane"
    return data


def fill(server: Orthanc, folder: Path) -> None:
    for i in range(4):
        data = image(i)
        if i == 3:
            data.PixelData = jpeg(pixels(3))
        syntax = {"syntax": JPEGBaseline8Bit} if i == 3 else {}
        server.upload(write(data, folder / f"{i}.dcm", **syntax))
    for i, (view, modality) in enumerate((("LL", "DX"), ("PA", "OT"))):
        other = image(0, SOPInstanceUID=generate_uid(), ViewPosition=view, Modality=modality)
        server.upload(write(other, folder / f"other{i}.dcm"))


@pytest.fixture
def settings(orthanc: Orthanc, tmp_path: Path) -> DicomWebSettings:
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    return DicomWebSettings(
        url=orthanc.url,
        plaintext_on_loopback=True,
        username=USER,
        password_file=password,
        page_size=1,
        attempts=2,
    )


def wanted(tmp_path: Path, key: str, names: list[str]) -> Path:
    lines = [f"{name},{'NORMAL' if i % 2 == 0 else 'PNEUMONIA'}" for i, name in enumerate(names)]
    path = tmp_path / "wanted.csv"
    path.write_text("\n".join([f"{key},label", *lines]))
    return path


async def fetched(settings: DicomWebSettings, tmp_path: Path, labels: Path) -> Path:
    return (await Archives({"pacs": settings}, cache=tmp_path / "cache").fetch("pacs", labels=labels)).folder


@pytest.mark.parametrize(
    ("key", "names", "patients"),
    [
        ("SOPInstanceUID", INSTANCES, [0, 0, 1, 1]),
        ("StudyInstanceUID", STUDIES, [0, 0, 1, 1]),
        ("PatientID", [f"{SECRET}-0", f"{SECRET}-1"], [0, 0, 1, 1]),
    ],
    ids=["instances", "studies", "patients"],
)
async def test_images_named_by_any_id_become_a_data_set_in_the_cache(
    settings: DicomWebSettings, tmp_path: Path, key: str, names: list[str], patients: list[int]
) -> None:
    with capture_logs() as logs:
        folder = await fetched(settings, tmp_path, wanted(tmp_path, key, names))
    images = load_dataset(folder, size=32)
    assert sorted(images.patients) == [f"patient-{i:06d}" for i in patients]
    order = sorted(range(4), key=lambda i: INSTANCES[i])
    files = [dcmread(file) for file in sorted(folder.glob("*.dcm"))]
    assert [file.SOPInstanceUID for file in files] == [INSTANCES[i] for i in order]
    assert files[order.index(3)].file_meta.TransferSyntaxUID == JPEGBaseline8Bit  # as it is stored
    assert images.labels.tolist() == [(i % 2 if key != "PatientID" else i // 2) for i in order]
    assert folder.parent.parent == tmp_path / "cache"
    assert folder.parent.stat().st_mode & 0o077 == 0
    [event] = [entry for entry in logs if entry["event"] == "dicomweb_fetched"]
    assert (event["count"], event["skipped"]) == (4, 0 if key == "SOPInstanceUID" else 2)
    assert SECRET not in repr(logs)
    assert not any(uid in repr(logs) for uid in (*STUDIES, *INSTANCES))


async def test_the_same_list_again_is_the_same_folder(settings: DicomWebSettings, tmp_path: Path) -> None:
    labels = wanted(tmp_path, "SOPInstanceUID", INSTANCES)
    archives = Archives({"pacs": settings}, cache=tmp_path / "cache")
    first, second = [await archives.fetch("pacs", labels=labels) for _ in range(2)]
    assert (first.folder, first.fresh, second.fresh) == (second.folder, True, False)
    second.discard()
    inspection = Datasets().inspect(first.folder, data_roots=[tmp_path / "cache"])
    assert (inspection.images, inspection.patients) == (4, 2)
    assert '"PatientName"' in inspection.identification
    assert SECRET not in repr(inspection)
    first.discard()
    assert not list((tmp_path / "cache" / "pacs").iterdir())


async def test_addresses_with_patients_in_them_reach_no_log(
    settings: DicomWebSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await fetched(settings, tmp_path, wanted(tmp_path, "PatientID", [f"{SECRET}-0", f"{SECRET}-1"]))
    told = caplog.text
    assert not any(text in told for text in (SECRET, *STUDIES, *INSTANCES))


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"username": "nobody"}, PermissionDenied, "refuses this node"),
        ({"max_images": 3}, TooLarge, "max_images"),
        ({"max_total_bytes": 1000}, TooLarge, "max_total_bytes"),
        ({"url": "https://127.0.0.1:1/dicom-web"}, Unavailable, "does not answer"),
    ],
    ids=["another user", "images", "bytes", "nobody there"],
)
async def test_what_goes_wrong_is_said_and_leaves_nothing_behind(
    settings: DicomWebSettings, tmp_path: Path, changed: dict[str, Any], error: type[TrefoilError], text: str
) -> None:
    labels = wanted(tmp_path, "PatientID", [f"{SECRET}-0", f"{SECRET}-1"])
    with pytest.raises(error, match=text) as caught:
        await fetched(settings.model_copy(update=changed), tmp_path, labels)
    assert SECRET not in repr(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert not list((tmp_path / "cache" / "pacs").iterdir())


async def test_certificates_are_checked(orthanc: Orthanc, settings: DicomWebSettings, tmp_path: Path) -> None:
    certificate, key = loopback_certificate(tmp_path / "tls")
    loopback_certificate(tmp_path / "other")
    labels = wanted(tmp_path, "SOPInstanceUID", INSTANCES)
    async with behind_tls(orthanc, certificate, key) as url:
        trusted = settings.model_copy(update={"url": url, "ca": tmp_path / "tls" / "ca.crt"})
        assert len(load_dataset(await fetched(trusted, tmp_path, labels), size=32)) == 4
        for ca in (None, tmp_path / "other" / "ca.crt"):
            with pytest.raises(Unavailable, match="certificate"):
                await fetched(trusted.model_copy(update={"ca": ca}), tmp_path, labels)


async def test_an_id_that_the_server_does_not_know_is_refused_by_its_place(
    settings: DicomWebSettings, tmp_path: Path
) -> None:
    labels = wanted(tmp_path, "StudyInstanceUID", [STUDIES[0], "1.2.3"])
    with pytest.raises(InvalidInput, match="entry 2 of the list"):
        await fetched(settings, tmp_path, labels)


async def test_files_larger_than_any_radiograph_are_not_taken(
    settings: DicomWebSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(TooLarge, match="not a radiograph"):
        await fetched(settings, tmp_path, wanted(tmp_path, "SOPInstanceUID", INSTANCES))


# ---------------------------------------------------------------- servers that misbehave

Answer = Callable[[str, int], bytes]
"""(path, number of the request) to the whole answer, status line included."""


class _Hostile:
    """Answers on loopback with whatever a test says; nothing after it."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self.paths = answer, list[str]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.paths.append(request.split()[1])
        writer.write(self._answer(self.paths[-1], len(self.paths)))
        await writer.drain()
        writer.close()


def http(
    body: bytes, *, status: str = "200 OK", kind: str = "application/dicom+json", more: str = ""
) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n{more}\r\n"
    return head.encode() + body


FOUND = json.dumps(
    [{tag: {"vr": "UI", "Value": [f"1.{i}"]} for i, tag in enumerate(("00080018", "0020000D", "0020000E"))}]
).encode()
MULTIPART = 'multipart/related; type="application/dicom"; boundary="b-1"'
PART = b"--b-1\r\nContent-Type: application/dicom\r\n\r\n"


async def _ask(answer: Answer, tmp_path: Path, **changed: Any) -> tuple[bytes, list[str]]:
    """What is fetched of the one instance that a hostile server has, and what it was asked for."""
    hostile = _Hostile(answer)
    server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = {"attempts": 2, "plaintext_on_loopback": True, "timeout_s": 2, **changed}
    settings = DicomWebSettings(url=f"http://127.0.0.1:{port}/dw", **options)

    async def no_sleep(_: float) -> None:
        """Retries at once."""

    async with server, DicomWebClient(settings, name="pacs", sleep=no_sleep) as client:
        [instance] = await client.find_instance("1.0")
        await client.fetch(instance, tmp_path / "a.dcm")
    return (tmp_path / "a.dcm").read_bytes(), hostile.paths


def _server(part: bytes, *, kind: str = MULTIPART, status: str = "200 OK", more: str = "") -> Answer:
    """A good search, then this answer to every fetch."""

    def answer(path: str, number: int) -> bytes:
        if "/instances?" in path:
            return http(FOUND)
        return http(part, kind=kind, status=status, more=more)

    return answer


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (PART + b"abc\r\n-\r\n--b-1--", MULTIPART),
        (b"preamble\r\n" + PART + b"abc\r\n-\r\n--b-1--\r\nepilogue", MULTIPART),
        (b"abc\r\n-", "application/dicom"),
    ],
    ids=["multipart", "with preamble", "single"],
)
async def test_one_file_comes_out_of_every_form_of_answer(tmp_path: Path, part: bytes, kind: str) -> None:
    content, paths = await _ask(_server(part, kind=kind), tmp_path)
    assert content == b"abc\r\n-"
    assert paths[-1] == "/dw/studies/1.1/series/1.2/instances/1.0"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (_server(PART + b"abc"), "ends too early"),
        (_server(PART + b"abc\r\n--b-1\r\nContent-Type: application/dicom\r\n\r\nx\r\n--b-1--"), "several"),
        (_server(b"--b-1\r\nContent-Type: text/html\r\n\r\nx\r\n--b-1--"), "other than a DICOM file"),
        (_server(b"--b-1\r\n" + b"X: y\r\n" * 9000), "endless header"),
        (_server(b"<html>", kind="text/html"), "other than a DICOM file"),
        (_server(b"", status="302 Found", more="location: http://127.0.0.1:1/\r\n"), "status 302"),
        (_server(b"", status="404 Not Found"), "status 404"),
        (_server(b"", status="503 Busy"), "status 503"),
        (_server(b"x", more="content-encoding: gzip\r\n"), "without being asked"),
        (lambda path, number: http(b"{}"), "with something else"),
        (lambda path, number: http(b"[1]"), "with something else"),
        (lambda path, number: http(FOUND.replace(b"1.1", b"../..")), "without UIDs"),
        (lambda path, number: http(FOUND.replace(b"1.0", b"1.9")), "other images than those asked for"),
        (lambda path, number: http(b"[{}]"), "without UIDs"),
        (lambda path, number: b"nonsense\r\n\r\n", "does not answer"),
        (lambda path, number: b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n[", "does not answer"),
    ],
    ids=[
        *(
            "cut",
            "two files",
            "not DICOM",
            "header",
            "not multipart",
            "redirect",
            "missing",
            "busy",
            "packed",
        ),
        *("no list", "no entries", "path for a UID", "another image", "no UID", "no HTTP", "short"),
    ],
)
async def test_a_server_that_misbehaves_is_refused_in_words(
    tmp_path: Path, answer: Answer, text: str
) -> None:
    with pytest.raises(TrefoilError, match=text):
        await _ask(answer, tmp_path)


async def test_a_failure_that_passes_is_tried_again(tmp_path: Path) -> None:
    def answer(path: str, number: int) -> bytes:
        if number % 2:
            return http(b"", status="503 Busy")
        return _server(PART + b"abc\r\n--b-1--")(path, number)

    content, paths = await _ask(answer, tmp_path)
    assert content == b"abc"
    assert len(paths) == 6  # two pages of the search and the file, each twice


async def test_a_silent_server_is_given_up() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = DicomWebSettings(url=url, plaintext_on_loopback=True, timeout_s=0.2, attempts=1)
    async with server, DicomWebClient(settings, name="pacs") as client:
        with pytest.raises(Unavailable, match="ReadTimeout"):
            await client.find_instance("1.0")


@pytest.mark.parametrize("call", ["find_in_study", "find_of_patient"])
async def test_images_of_another_study_or_patient_are_never_taken_for_those_asked_for(call: str) -> None:
    """They would be published under the label of the one who was listed."""
    hostile = _Hostile(lambda path, number: http(FOUND))
    server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/dw"
    settings = DicomWebSettings(url=url, attempts=1, plaintext_on_loopback=True, timeout_s=2)
    async with server, DicomWebClient(settings, name="pacs") as client:
        with pytest.raises(TrefoilError, match="other images than those asked for"):
            await getattr(client, call)("1.7")
