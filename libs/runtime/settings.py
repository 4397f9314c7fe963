"""Settings of a service: one frozen model per service, read once from a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from libs.core.errors import InvalidInput

_SQLITE = "sqlite:///"


class ServiceSettings(BaseModel):
    """Base of every settings model, nested ones too: frozen, unknown keys refused.

    Paths, and files in `sqlite:///` URLs, are relative to the settings file, so that a folder with settings,
    keys and data can be moved as a whole. A model made without a file keeps its paths as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("*", mode="after")
    @classmethod
    def _relative_to_the_file(cls, value: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        return value if folder is None else _resolve(value, folder)


Settings = TypeVar("Settings", bound=ServiceSettings)


def load_settings(cls: type[Settings], path: Path) -> Settings:
    """The settings in the TOML file `path`. InvalidInput names every wrong key in plain words."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The settings file {path} is not TOML: {error}.") from error
    try:
        return cls.model_validate(data, context={"folder": path.resolve().parent})
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(dict(problem))}" for problem in error.errors(include_url=False))
        raise InvalidInput(f"The settings file {path} needs changes:\n{problems}") from error


def _resolve(value: Any, folder: Path) -> Any:
    """`value` with every relative path in it taken from `folder`. Nested models have resolved their own."""
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, str) and value.startswith(_SQLITE):
        file = value.removeprefix(_SQLITE)
        return value if file in {"", ":memory:"} else f"{_SQLITE}{folder / file}"
    if isinstance(value, tuple | list):
        return type(value)(_resolve(item, folder) for item in value)
    if isinstance(value, dict):
        return {key: _resolve(item, folder) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: _resolve(getattr(value, field.name), folder) for field in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


def _describe(problem: dict[str, Any]) -> str:
    """One wrong key, without echoing its value: it may be a secret put in the wrong place."""
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    plain = {"missing": "is missing", "extra_forbidden": "is not a known key; check its spelling"}
    kind, message = problem["type"], problem["msg"]
    return f"{key}: {plain.get(kind, message[:1].lower() + message[1:])}"
