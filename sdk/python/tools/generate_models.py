"""Writes ``farlabs/models.py`` (what a gateway answers) and ``farlabs/parameters.py`` (what it is asked).

Both come from openapi.json. Answers are read with goodwill, so that programs outlive gateways: what may be null may be
absent, a word that is not in the list is a word, limits of numbers and texts are the gateway's business, what is new is
kept.

    python sdk/python/tools/generate_models.py          writes both
    python sdk/python/tools/generate_models.py --check  says whether both are as they would be written
"""

from __future__ import annotations

import argparse
import json
import keyword
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent.parent / "openapi.json"
PACKAGE = HERE.parent / "src" / "farlabs"

Schema = Mapping[str, Any]
Schemas = Mapping[str, Schema]

BESIDES = ("TokenEvent", "DoneEvent", "VoucherEvent", "EmbeddingAnswer")
"""Events of a stream, which no operation has as its answer, and what is used of ``/v1``."""

OPTIONS = {
    "GenerateOptions": ("GenerateRequest", {"model_id", "prompt", "messages", "max_tokens", "temperature", "stream"}),
    "QuoteOptions": ("QuoteRequest", {"model_id", "prompt", "messages", "max_tokens"}),
    "JobOptions": ("JobRequest", {"model_id", "prompt", "messages", "max_tokens"}),
}
"""What methods take as keywords beyond the parameters that they name themselves."""

REQUESTS = ("ClaimRequest", "KeyRequest", "Message")

SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
FORMATS = {"date-time": "AwareDatetime", "date": "date"}

HEAD = '''"""{about}

Written by tools/generate_models.py: change the gateway, not this.
"""

from __future__ import annotations

{imports}

'''


def models_of(document: Mapping[str, Any]) -> str:
    """The module of answers."""
    schemas: Schemas = document["components"]["schemas"]
    first = [name for answer in answers(document) for name in named(answer)]
    classes = [a_class(name, schemas) for name in reachable([*first, *BESIDES], schemas)]
    imports = (
        "from datetime import date\nfrom typing import Any, Literal\n\n"
        "from pydantic import AwareDatetime, Field\n\nfrom farlabs._model import Model\n"
    )
    return HEAD.format(about="What a gateway answers.", imports=imports) + "\n\n".join(classes)


def parameters_of(document: Mapping[str, Any]) -> str:
    """The module of what is asked."""
    schemas: Schemas = document["components"]["schemas"]
    options = [a_dictionary(name, without(schemas[of], left_out)) for name, (of, left_out) in OPTIONS.items()]
    inner = [
        name
        for of, left_out in OPTIONS.values()
        for schema in without(schemas[of], left_out)["properties"].values()
        for name in named(schema)
    ]
    classes = [a_dictionary(name, schemas[name], schemas) for name in reachable([*REQUESTS, *inner], schemas)]
    imports = "from typing import Any, Literal\n\nfrom typing_extensions import Required, TypedDict\n"
    return HEAD.format(about="What a gateway is asked.", imports=imports) + "\n\n".join(classes + options)


def answers(document: Mapping[str, Any]) -> Iterator[Schema]:
    """What operations answer when all is well. Those of ``/v1`` have clients of their own."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                content = answer.get("content", {})
                if status.startswith("2") and not path.startswith("/v1/") and "application/json" in content:
                    yield content["application/json"]["schema"]


def named(schema: object) -> Iterator[str]:
    """The names that a schema speaks of."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        for value in schema.values():
            yield from named(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from named(value)


def reachable(first: Iterable[str], schemas: Schemas) -> list[str]:
    """These, and what they are made of: those with fields, in the order of the alphabet."""
    found: set[str] = set()
    todo = list(first)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(named(schemas[name]))
    return sorted(name for name in found if "properties" in schemas[name])


def without(schema: Schema, left_out: set[str]) -> Schema:
    """An object's schema without some fields."""
    kept = {name: about for name, about in schema["properties"].items() if name not in left_out}
    return {**schema, "properties": kept, "required": [name for name in schema.get("required", ()) if name in kept]}


def a_class(name: str, schemas: Schemas) -> str:
    """A class of pydantic's."""
    schema = schemas[name]
    lines = [f"class {name}(Model):", docstring(name, schema), ""]
    required = schema.get("required", ())
    for field, about in schema["properties"].items():
        kind = type_of(about, schemas, is_open=True)
        may_be_absent = field not in required or "None" in kind.split(" | ")
        told = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", field).lower()
        told += "_" if keyword.iskeyword(told) else ""
        default = repr(about.get("default")) if may_be_absent else None
        if default == "None" and "None" not in kind.split(" | "):
            kind += " | None"
        if default is not None and isinstance(about.get("default"), list | dict):
            factory = "list" if isinstance(about["default"], list) else "dict"
            value = f" = Field(default_factory={factory})"
        elif told != field:
            value = f" = Field(alias={field!r})" if default is None else f" = Field({default}, alias={field!r})"
        else:
            value = "" if default is None else f" = {default}"
        lines.append(f"    {told}: {kind}{value}")
    return "\n".join(lines) + "\n"


def a_dictionary(name: str, schema: Schema, schemas: Schemas | None = None) -> str:
    """A dictionary with known keys."""
    lines = [f"class {name}(TypedDict, total=False):", docstring(name, schema), ""]
    for field, about in schema["properties"].items():
        kind = type_of(about, schemas or {}, is_open=False)
        lines.append(f"    {field}: {f'Required[{kind}]' if field in schema.get('required', ()) else kind}")
    return "\n".join(lines) + "\n"


def type_of(schema: Schema, schemas: Schemas, *, is_open: bool) -> str:
    """A schema as a type. ``is_open``: it is read and not written, and there may be more words in a later version."""
    if "$ref" in schema:
        name = str(schema["$ref"].rpartition("/")[2])
        target = schemas.get(name)
        return name if target is None or "properties" in target else type_of(target, schemas, is_open=is_open)
    either = schema.get("anyOf") or schema.get("oneOf")
    if either:
        return " | ".join(dict.fromkeys(type_of(one, schemas, is_open=is_open) for one in either))
    if "const" in schema:
        return f"Literal[{schema['const']!r}]"
    if "enum" in schema:
        words = f"Literal[{', '.join(map(repr, schema['enum']))}]"
        return f"{words} | str" if is_open else words
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            inner = ", ".join(type_of(one, schemas, is_open=is_open) for one in schema["prefixItems"])
            return f"tuple[{inner}]"
        return f"list[{type_of(schema.get('items', {}), schemas, is_open=is_open)}]"
    if kind == "object":
        values = schema.get("additionalProperties", True)
        return f"dict[str, {type_of(values, schemas, is_open=is_open) if isinstance(values, Mapping) else 'Any'}]"
    if kind == "string":
        return FORMATS.get(schema.get("format", ""), "str") if is_open else "str"
    return SIMPLE.get(str(kind), "Any")


def docstring(name: str, schema: Schema) -> str:
    """What the document says of it."""
    text = " ".join(schema.get("description", f"{name}.").split()).replace("\\", "\\\\").replace('"""', "'''")
    lines = textwrap.wrap(text, 110)
    if len(lines) == 1:
        return f'    """{lines[0]}"""'
    return "\n".join(['    """' + lines[0], *(f"    {line}" for line in lines[1:]), '    """'])


def formatted(code: str) -> str:
    """As the house formats it, without imports that nothing uses."""
    for arguments in (["check", "--select", "F401,I", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(PACKAGE / "models.py"), "-"]
        code = subprocess.run(command, input=code, text=True, check=True, capture_output=True).stdout
    return code


def main() -> None:
    """Write, or compare."""
    options = argparse.ArgumentParser(description="models of the Python SDK from openapi.json")
    options.add_argument("--check", action="store_true", help="write nothing, and fail if something is stale")
    is_check = options.parse_args().check
    document = json.loads(DOCUMENT.read_text())
    for name, make in (("models.py", models_of), ("parameters.py", parameters_of)):
        path, fresh = PACKAGE / name, formatted(make(document))
        if not is_check:
            path.write_text(fresh)
        elif not path.exists() or path.read_text() != fresh:
            sys.exit(f"{path.name} is not what openapi.json says: run make generate")


if __name__ == "__main__":
    main()
