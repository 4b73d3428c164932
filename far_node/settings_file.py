"""The file of settings as it is written: whole or not at all, with all that its owner wrote beside, for him alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from discovery.protocol.errors import FarError
from discovery.settings import FLAG, Said, load
from discovery.web.errors import InvalidSetting
from far_node.settings import NodeSettings, check


def change(file: Path, key: str, value: Any) -> tuple[Any, list[FarError]]:
    """Give a setting another value in a file, which is made if there is none. None takes it out.

    Returns:
        The value as it was understood; and what is wrong with it, alone or beside the others, so that nothing was
        written.

    Raises:
        InvalidSetting: the file cannot be read or written.
    """
    content = load(file) if file.is_file() else {}
    typed = None
    if value is not None:
        found, errors = check(Said({key: value}, {key: FLAG}), needed=False)
        if errors:
            return None, errors
        typed = found.model_dump(mode="json")[key]
        before = {error.message for error in _wrong_with(content)}
        errors = [error for error in _wrong_with(content | {key: typed}) if error.message not in before]
        if errors:
            return None, errors
    document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.is_file() else tomlkit.document()
    if value is not None:
        document[key] = typed
    elif key in document:
        del document[key]
    write(file, tomlkit.dumps(document))
    return typed, []


def write(file: Path, text: str) -> None:
    """Put ``text`` into a file of mode 0600, whole or not at all; directories that lack are made.

    Raises:
        InvalidSetting: it cannot be written.
    """
    file = file.resolve()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, fresh = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            Path(fresh).replace(file)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InvalidSetting(f"{file} cannot be written: {error.strerror}") from None


def _wrong_with(content: Mapping[str, Any]) -> list[FarError]:
    known = {key: value for key, value in content.items() if key in NodeSettings.model_fields}
    return check(Said(known, dict.fromkeys(known, FLAG)), needed=False, addresses=False)[1]
