"""What was said of each setting, who said it, and everything that is wrong with it.

Values are put together by name: who comes first says the whole of a setting, also where it is a list or a table.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource

from far_mesh.marketplace.configuration import files
from far_mesh.marketplace.errors import InvalidSetting

FLAG, ENVIRONMENT, DEFAULT = "flag", "environment", "default"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong. ``setting`` is the name of its variable, ``origin`` who said it."""

    setting: str
    origin: str
    message: str


@dataclass(frozen=True)
class Said:
    """What was said: ``values`` and ``origins`` by the names of fields; ``file`` if one was read."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    file: Path | None = None

    def origin(self, name: str) -> str:
        """Who said the field ``name``."""
        return self.origins.get(name, DEFAULT)


def gather(kind: type[BaseSettings], flags: Mapping[str, Any], config: Path | None = None) -> Said:
    """Everything that was said of the settings of ``kind``, none of it checked yet but for what cannot be read."""
    values, origins, problems = dict(flags), dict.fromkeys(flags, FLAG), list[Problem]()
    source = EnvSettingsSource(kind)
    for name, about in kind.model_fields.items():
        value, _key, is_complex = source.get_field_value(about, name)
        if value is None or name in values:
            continue
        origins[name] = ENVIRONMENT
        try:
            values[name] = source.prepare_field_value(name, about, value, is_complex)
        except ValueError:
            message = f"the setting {variable(kind, name)} is not usable: it must be JSON"
            problems.append(Problem(variable(kind, name), ENVIRONMENT, message))
    file, content = None, dict[str, Any]()
    try:
        file = files.find(config)
        content = {} if file is None else files.load(file)
    except InvalidSetting as error:
        problems.append(Problem(files.VARIABLE, str(file or config or ENVIRONMENT), error.message))
    for key, value in content.items():
        if key not in kind.model_fields:
            problems.append(Problem(key, str(file), f"there is no setting {key!r}{did_you_mean(key, kind)} ({file})"))
        elif key not in origins:
            values[key], origins[key] = value, str(file)
    return Said(values, origins, problems, file)


def variable(kind: type[BaseSettings], name: str) -> str:
    """The variable of a field."""
    return (kind.model_config.get("env_prefix", "") + name).upper()


def did_you_mean(key: str, kind: type[BaseModel]) -> str:
    """A guess at what was meant, as the end of a sentence, or nothing."""
    plain = key.lower().replace("-", "_").removeprefix("far_")
    close = difflib.get_close_matches(plain, kind.model_fields, 1, 0.7)
    return f"; did you mean {close[0]!r}?" if close else ""


def problems_of(error: ValidationError, kind: type[BaseSettings], said: Said) -> Iterator[Problem]:
    """All that ``error`` has to say, without a single value."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    # A field that is misspelt is one that is missing too: the first says what happened.
    for one in sorted(found, key=lambda one: one["type"] != "extra_forbidden"):
        name, *inside = one["loc"] or ("",)
        origin, message = said.origin(str(name)), one["msg"]
        if one["type"] == "extra_forbidden":
            message = "there is no such field" + _guess(kind, one["loc"])
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)
        where = f"{str(name) + place}: " if place else ""
        of_file = f" ({origin})" if origin not in (FLAG, ENVIRONMENT, DEFAULT) else ""
        setting = variable(kind, str(name))
        yield Problem(setting, origin, f"the setting {setting} is not usable: {where}{message}{of_file}")


def _guess(kind: type[BaseModel], place: tuple[int | str, ...]) -> str:
    *path, key = place
    models = [kind]
    for part in path:
        if isinstance(part, str):
            found = [model.model_fields[part].annotation for model in models if part in model.model_fields]
            models = list(_models(found)) or models
    return next(filter(None, (did_you_mean(str(key), model) for model in models)), "")


def _models(annotations: Iterable[Any]) -> Iterator[type[BaseModel]]:
    """The models in types, however they are wrapped."""
    for one in annotations:
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield one
        else:
            yield from _models(get_args(one))
