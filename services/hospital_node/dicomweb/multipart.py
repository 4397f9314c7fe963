"""The one file in a multipart/related answer (RFC 2046, 2387), as it streams in, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import Message
from email.parser import BytesParser

from libs.core.errors import Unavailable

MAX_HEADER_BYTES = 16 * 1024
_DICOM = "application/dicom"


class BrokenAnswer(Unavailable):
    """The server's answer is not what DICOMweb says, or ended too early."""


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart answer; None for a single file. Raises BrokenAnswer for any other type."""
    message = Message()
    message["content-type"] = content_type
    if message.get_content_type() == _DICOM:
        return None
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/related" or not boundary or len(boundary) > 70:
        raise BrokenAnswer("The DICOMweb server answers with something other than a DICOM file.")
    return boundary.encode("ascii", "replace")


async def only_part(chunks: AsyncIterator[bytes], *, boundary: bytes) -> AsyncIterator[bytes]:
    """The content of the one part, piece by piece.

    Raises BrokenAnswer for an answer that ends within it, for another type, and for a second part; what was
    given out before is then worth nothing.
    """
    delimiter = b"\r\n--" + boundary
    buffer = b"\r\n"  # so that the first delimiter, which may begin the answer, is like all others
    while (at := buffer.find(delimiter)) < 0:  # a preamble is allowed and means nothing
        buffer = buffer[-(len(delimiter) - 1) :] + await _next(chunks)
    buffer = buffer[at + len(delimiter) :]
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        if len(buffer) > MAX_HEADER_BYTES:
            raise BrokenAnswer("The DICOMweb server sends a part with an endless header.")
        buffer += await _next(chunks)
    header = BytesParser().parsebytes(buffer[:end].lstrip(b" \t").removeprefix(b"\r\n"), headersonly=True)
    if header.get_content_type() != _DICOM:
        raise BrokenAnswer("The DICOMweb server sends something other than a DICOM file.")
    buffer = buffer[end + 4 :]
    while (at := buffer.find(delimiter)) < 0:
        sure = len(buffer) - len(delimiter) + 1  # the rest may be a delimiter's beginning
        if sure > 0:
            yield buffer[:sure]
            buffer = buffer[sure:]
        buffer += await _next(chunks)
    yield buffer[:at]
    rest = buffer[at + len(delimiter) :]
    while len(rest) < 2:
        rest += await _next(chunks)
    if not rest.startswith(b"--"):
        raise BrokenAnswer("The DICOMweb server sends several files where one was asked for.")


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        raise BrokenAnswer("The DICOMweb server's answer ends too early.") from None
