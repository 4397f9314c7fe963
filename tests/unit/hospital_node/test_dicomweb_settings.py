"""What a node's settings and lists may say of archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from libs.core.errors import CallerError
from services.hospital_node.dicomweb.archives import read_wanted
from services.hospital_node.dicomweb.client import DicomWebClient
from services.hospital_node.dicomweb.settings import DicomWebSettings


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"url": "http://pacs.example/dicom-web"}, "do not travel over http"),
        ({"url": "http://127.0.0.1/dicom-web"}, "do not travel over http"),
        ({"url": "http://localhost/dicom-web", "plaintext_on_loopback": True}, "do not travel over http"),
        ({"url": "http://10.0.0.1/dicom-web", "plaintext_on_loopback": True}, "do not travel over http"),
        ({"url": "file:///etc"}, "url is https"),
        ({"url": "https://pacs.example/"}, "without a trailing slash"),
        ({"url": "https://me:secret@pacs.example/x"}, "credentials are files"),
        ({"url": "https://pacs.example/x?token=1"}, "credentials are files"),
        ({"username": "node"}, "belong together"),
        ({"password_file": "p"}, "belong together"),
        ({"username": "node", "password_file": "p", "token_file": "t"}, "not both"),
        ({"verify": False}, "Extra inputs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_a_server_that_could_leak_images_or_secrets_cannot_be_configured(
    changed: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValidationError, match=text):
        DicomWebSettings(**{"url": "https://pacs.example/dicom-web", **changed})


def test_plain_http_is_for_loopback_only_and_when_asked_for() -> None:
    for host in ("127.0.0.1", "[::1]"):
        assert DicomWebSettings(url=f"http://{host}:8042/dicom-web", plaintext_on_loopback=True)


def test_a_password_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    file.chmod(0o644)
    settings = DicomWebSettings(url="https://pacs.example/x", username="node", password_file=file)
    with pytest.raises(CallerError, match="Everybody"):
        DicomWebClient(settings, name="pacs")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label\nNORMAL\n", "exactly one of the columns"),
        ("PatientID,SOPInstanceUID,label\n1,1.2,NORMAL\n", "exactly one of the columns"),
        ("PatientID\n1\n", "a column label"),
        ("PatientID,label\n", "names no image"),
        ("PatientID,label\n*,NORMAL\n", "Line 2 .* can be asked for"),
        ("PatientID,label\na\\b,NORMAL\n", "Line 2 .* can be asked for"),
        ("PatientID,label\n,NORMAL\n", "Line 2 .* can be asked for"),
        ("StudyInstanceUID,label\n1.2/../3,NORMAL\n", "Line 2 .* can be asked for"),
        (f"StudyInstanceUID,label\n{'1' * 65},NORMAL\n", "Line 2 .* can be asked for"),
        ("PatientID,label\n1,NORMAL\n1,PNEUMONIA\n", "Line 3 .* another label"),
        ("PatientID,label\n1,COVID\n", "neither NORMAL nor PNEUMONIA"),
    ],
    ids=range(11),
)
def test_a_list_that_cannot_be_asked_for_is_refused_before_anything_is(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "wanted.csv"
    path.write_text(text)
    with pytest.raises(CallerError, match=expected):
        read_wanted(path)
