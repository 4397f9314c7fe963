"""Finding and fetching instances: QIDO-RS in pages, WADO-RS in a stream, with limits, deadlines and retries.

No error, log or exception holds an address: those name patients. Redirects and proxies of the environment are
not followed, and answers are not decompressed, so that the limits hold.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from libs.core.errors import InvalidInput, PermissionDenied, TooLarge
from libs.data.dicom_file import MAX_FILE_BYTES
from libs.runtime.logging import get_logger
from libs.runtime.private_files import require_private
from services.hospital_node.dicomweb.multipart import BrokenAnswer, boundary_of, only_part
from services.hospital_node.dicomweb.settings import DicomWebSettings

MAX_PAGE_BYTES = 32 * 2**20
"""Of a page of search results: 1000 entries of some kilobytes."""

RETRY_S = (0.5, 2.0, 5.0)
"""Before the second, third and every later attempt."""

_BUSY = {408, 425, 429, 500, 502, 503, 504}
_INSTANCE, _STUDY, _SERIES = "00080018", "0020000D", "0020000E"
_PATIENT = "00100020"
_MODALITY, _VIEW, _BODY_PART = "00080060", "00185101", "00180015"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
_MAX_UID_CHARACTERS = 64

_Query = Mapping[str, str | list[str]]

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

log = get_logger(__name__)


@dataclass(frozen=True)
class Instance:
    """One image at the server: where it lies, and as far as the server says it, what it shows."""

    study: str
    series: str
    instance: str
    modality: str = ""
    view: str = ""
    body_part: str = ""


def is_uid(text: str) -> bool:
    """Whether this is a DICOM UID; nothing else is put into an address."""
    return len(text) <= _MAX_UID_CHARACTERS and _UID.fullmatch(text) is not None


class DicomWebClient:
    """One server, for as long as the context is open. All failures are TrefoilErrors in words."""

    def __init__(self, settings: DicomWebSettings, *, name: str, sleep: Sleep = asyncio.sleep) -> None:
        """`name` is the server's in the settings, for texts. Raises InvalidInput for unreadable files."""
        self._settings, self._name, self._sleep = settings, name, sleep
        self._context, self._headers = _tls(settings.ca), _authorisation(settings)
        self._client: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        for library in ("httpx", "httpcore"):  # they log every address, and addresses name patients
            logging.getLogger(library).setLevel(logging.CRITICAL)
        self._client = httpx.AsyncClient(
            verify=self._context,
            trust_env=False,
            follow_redirects=False,
            timeout=self._settings.timeout_s,
            headers={"accept-encoding": "identity", **self._headers},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def find_instance(self, uid: str) -> list[Instance]:
        """The instance with this UID, if there is one."""
        found = await self._search("/instances", {"SOPInstanceUID": uid})
        self._require(all(one.instance == uid for one in found))
        return found

    async def find_in_study(self, study: str) -> list[Instance]:
        """All instances of a study."""
        found = await self._search(f"/studies/{study}/instances", {}, study=study)
        self._require(all(one.study == study for one in found))
        return found

    async def find_of_patient(self, patient: str) -> list[Instance]:
        """All instances of a patient: of each of the studies under this PatientID."""
        studies = await self._pages("/studies", {"PatientID": patient}, key=_STUDY)
        self._require(all(_text(entry, _PATIENT).strip() == patient for entry in studies))
        return [instance for entry in studies for instance in await self.find_in_study(_text(entry, _STUDY))]

    def _require(self, as_asked: bool) -> None:
        """Raise BrokenAnswer for what was not asked for: it would get the label of somebody else."""
        if not as_asked:
            raise BrokenAnswer(
                f"The DICOMweb server {self._name!r} finds other images than those asked for. Have its "
                "operator look at its searches."
            )

    async def fetch(self, instance: Instance, file: Path) -> int:
        """Write the instance as the server stores it to `file`. Bytes written.

        Raises TooLarge beyond MAX_FILE_BYTES.
        """
        path = f"/studies/{instance.study}/series/{instance.series}/instances/{instance.instance}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        return await self._retried(lambda: self._fetch_once(path, accept, file))

    async def _fetch_once(self, path: str, accept: str, file: Path) -> int:
        async with self._answer(path, {}, accept=accept) as answer:
            boundary = boundary_of(answer.headers.get("content-type", ""))
            chunks = answer.aiter_raw()
            parts = chunks if boundary is None else only_part(chunks, boundary=boundary)
            written = 0
            with file.open("wb") as stream:
                async for part in parts:
                    written += len(part)
                    if written > MAX_FILE_BYTES:
                        raise TooLarge(
                            f"The DICOMweb server {self._name!r} sends a file of more than "
                            f"{MAX_FILE_BYTES // 2**20} MiB. It is not a radiograph; do not list it."
                        )
                    stream.write(part)
            return written

    async def _search(self, path: str, query: _Query, *, study: str = "") -> list[Instance]:
        entries = await self._pages(path, query, key=_INSTANCE)
        found = [
            Instance(
                study=_text(entry, _STUDY) or study,
                series=_text(entry, _SERIES),
                instance=_text(entry, _INSTANCE),
                modality=_text(entry, _MODALITY).upper(),
                view=_text(entry, _VIEW).upper(),
                body_part=_text(entry, _BODY_PART).upper(),
            )
            for entry in entries
        ]
        if not all(is_uid(uid) for one in found for uid in (one.study, one.series, one.instance)):
            raise BrokenAnswer(f"The DICOMweb server {self._name!r} answers without UIDs.")
        return found

    async def _pages(self, path: str, query: _Query, *, key: str) -> list[Any]:
        """All entries, each once by its UID `key`, until a page brings nothing new."""
        found: dict[str, Any] = {}
        while len(found) <= self._settings.max_images:
            asked: _Query = {
                **query,
                "includefield": [_STUDY, _SERIES, _MODALITY, _VIEW, _BODY_PART],
                "limit": str(self._settings.page_size),
                "offset": str(len(found)),
            }
            page = await self._retried(lambda asked=asked: self._page_once(path, asked))  # type: ignore[misc]
            fresh = {_text(entry, key): entry for entry in page if _text(entry, key) not in found}
            if not all(is_uid(uid) for uid in fresh):
                raise BrokenAnswer(f"The DICOMweb server {self._name!r} answers without UIDs.")
            if not fresh:
                return list(found.values())
            found |= fresh
        raise TooLarge(
            f"The DICOMweb server {self._name!r} finds more than {self._settings.max_images} images. List "
            "less, or have the node's operator raise max_images."
        )

    async def _page_once(self, path: str, query: _Query) -> list[Any]:
        async with self._answer(path, query, accept="application/dicom+json") as answer:
            if answer.status_code == httpx.codes.NO_CONTENT:
                return []
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > MAX_PAGE_BYTES:
                    raise TooLarge(f"The DICOMweb server {self._name!r} answers a search without end.")
        try:
            entries = json.loads(body)
        except ValueError:
            entries = None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BrokenAnswer(f"The DICOMweb server {self._name!r} answers a search with something else.")
        return entries

    @asynccontextmanager
    async def _answer(self, path: str, query: _Query, *, accept: str) -> AsyncIterator[httpx.Response]:
        """A good answer, its body unread. Raises BrokenAnswer where another attempt may help."""
        failure = ""
        try:
            async with (
                asyncio.timeout(self._settings.image_timeout_s),
                self._client.stream(
                    "GET", self._settings.url + path, params=dict(query) or None, headers={"accept": accept}
                ) as answer,
            ):
                self._check(answer)
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ssl.SSLError) as error:
            failure = type(error).__name__
        if failure:  # outside of the except clause: the error holds the request's address
            log.warning("dicomweb_failed", server=self._name, failure=failure)
            raise BrokenAnswer(
                f"The DICOMweb server {self._name!r} does not answer ({failure}). Check that it runs, its "
                "address and its certificate, then publish again."
            )

    def _check(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status in {401, 403}:
            raise PermissionDenied(
                f"The DICOMweb server {self._name!r} refuses this node (status {status}). Have the node's "
                "operator check its credentials there."
            )
        if status in _BUSY:
            raise BrokenAnswer(f"The DICOMweb server {self._name!r} is not able to answer (status {status}).")
        if status not in {200, 204, 206}:
            raise InvalidInput(
                f"The DICOMweb server {self._name!r} does not do what was asked (status {status}). Check the "
                "url in the node's settings, and that it speaks QIDO-RS and WADO-RS."
            )
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise BrokenAnswer(f"The DICOMweb server {self._name!r} compresses without being asked.")

    async def _retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for number in range(self._settings.attempts - 1):
            with suppress(BrokenAnswer):
                return await attempt()
            await self._sleep(RETRY_S[min(number, len(RETRY_S) - 1)])
        return await attempt()


def _text(entry: Any, tag: str) -> str:
    """The first value of an element of DICOM JSON (PS3.18 F.2), if it is a text."""
    element = entry.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values and isinstance(values[0], str) else ""


def _tls(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"The CA certificate {ca} cannot be read or is not PEM.") from error


def _authorisation(settings: DicomWebSettings) -> dict[str, str]:
    """The header that says who asks; none where the server wants none."""
    if settings.token_file is not None:
        return {"authorization": f"Bearer {_secret(settings.token_file)}"}
    if settings.password_file is not None:
        request = httpx.Request("GET", "https://nowhere")
        flow = httpx.BasicAuth(settings.username, _secret(settings.password_file)).auth_flow(request)
        return {"authorization": next(flow).headers["authorization"]}
    return {}


def _secret(file: Path) -> str:
    try:
        require_private(file)
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # the error's text would hold a part of the secret
        secret = ""
    if not secret.isascii() or not secret.isprintable() or not secret:
        raise InvalidInput(f"The file {file} with a secret for DICOMweb is empty, not ASCII or not readable.")
    return secret
