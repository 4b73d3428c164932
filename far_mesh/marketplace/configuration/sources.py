"""What was said of each setting of the gateway, and who said it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource

from discovery import settings
from discovery.settings import ENVIRONMENT, FLAG, Problem, Said, unknown_key
from far_mesh.marketplace.configuration import files
from far_mesh.marketplace.errors import InvalidSetting


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
        content = {} if file is None else settings.load(file)
    except InvalidSetting as error:
        problems.append(Problem(files.VARIABLE, str(file or config or ENVIRONMENT), error.message))
    for key, value in content.items():
        if key not in kind.model_fields:
            problems.append(unknown_key(key, kind.model_fields, Path(str(file))))
        elif key not in origins:
            values[key], origins[key] = value, str(file)
    return Said(values, origins, problems, file)


def variable(kind: type[BaseSettings], name: str) -> str:
    """The variable of a field."""
    return (kind.model_config.get("env_prefix", "") + name).upper()


def problems_of(error: ValidationError, kind: type[BaseSettings], said: Said) -> Iterator[Problem]:
    """All that ``error`` has to say, without a single value."""
    return settings.problems_of(error, kind, said, lambda name: variable(kind, name))
