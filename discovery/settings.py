"""Where settings come from, and what is wrong with them: flags before the environment before a file before defaults.

Values are put together by name: who comes first says the whole of a setting, also where it is a list or a table.
"""

from __future__ import annotations

import difflib
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from discovery.web.errors import InvalidSetting

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


def load(path: Path) -> dict[str, Any]:
    """What stands in a file, by its keys.

    Raises:
        InvalidSetting: it cannot be read, or is not TOML; says where, and shows nothing of it.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"{path} is not TOML: it is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        # What was expected may quote a key or a character; the place is enough to find it.
        place = str(error).rpartition("(")[2].rstrip(")")
        raise InvalidSetting(f"{path} is not TOML: look {place}") from None


def is_open_to_others(path: Path) -> bool:
    """Whether anybody but its owner may read it."""
    return bool(stat.S_IMODE(path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH))


def did_you_mean(key: str, names: Iterable[str]) -> str:
    """A guess at what was meant, as the end of a sentence, or nothing. Prefixes of variables do not matter."""
    plain = key.lower().replace("-", "_").removeprefix("far_node_").removeprefix("far_")
    close = difflib.get_close_matches(plain, names, 1, 0.7)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown_key(key: str, names: Iterable[str], file: Path) -> Problem:
    """What is wrong with a key of a file that nobody reads."""
    return Problem(key, str(file), f"there is no setting {key!r}{did_you_mean(key, names)} ({file})")


def problems_of(
    error: ValidationError, kind: type[BaseModel], said: Said, variable: Callable[[str], str]
) -> Iterator[Problem]:
    """All that ``error`` has to say, without a single value. ``variable`` is the name of a field's variable."""
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
        setting = variable(str(name))
        yield Problem(setting, origin, f"the setting {setting} is not usable: {where}{message}{of_file}")


def _guess(kind: type[BaseModel], place: tuple[int | str, ...]) -> str:
    *path, key = place
    models = [kind]
    for part in path:
        if isinstance(part, str):
            found = [model.model_fields[part].annotation for model in models if part in model.model_fields]
            models = list(_models(found)) or models
    return next(filter(None, (did_you_mean(str(key), model.model_fields) for model in models)), "")


def _models(annotations: Iterable[Any]) -> Iterator[type[BaseModel]]:
    """The models in types, however they are wrapped."""
    for one in annotations:
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield one
        else:
            yield from _models(get_args(one))
