"""Small frozen records that travel as JSON in one canonical form."""

from __future__ import annotations

import json
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from libs.core.errors import InvalidInput

MAX_JSON_BYTES = 16 * 1024


class Record(BaseModel):
    """Parsed at the edge, unknown keys refused. `describes` names the record in errors, whose JSON has
    at most `max_bytes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    describes: ClassVar[str] = "record"
    max_bytes: ClassVar[int] = MAX_JSON_BYTES

    def canonical_json(self) -> bytes:
        """The one JSON form: keys sorted, no spaces, every field present, ASCII."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Parse and check. Raises InvalidInput naming every wrong field, never a value."""
        if len(text) > cls.max_bytes:
            raise InvalidInput(f"A {cls.describes} has at most {cls.max_bytes} bytes.")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            fields = sorted({".".join(map(str, problem["loc"])) or "all of it" for problem in error.errors()})
            raise InvalidInput(
                f"This is not a {cls.describes} that this Trefoil knows; wrong: {', '.join(fields)}. "
                "If it comes from a newer Trefoil, update this one."
            ) from None
