"""The forms of a DICOM result, apart from what writes them: a command line offers them without pydicom."""

from enum import StrEnum


class ResultForm(StrEnum):
    """Secondary Capture or Comprehensive SR."""

    CAPTURE = "capture"
    SR = "sr"
