"""What every door takes to say what was said before, and what may be called: chats and tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.errors import UnsupportedParameter

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]

# ---- what was said


class Part(BaseModel):
    """A piece of a message: ``{"type": "text", "text"}``."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None


class Called(BaseModel):
    """Which function a model called, and with what: the text of a JSON object."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    arguments: str


class Call(BaseModel):
    """A call of a tool, as the model made it."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: Called
    index: int | None = None


class Message(BaseModel):
    """One message of a chat. Of what the model said before, ``refusal`` and the like come back empty."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    def plain(self, place: int) -> dict[str, Any]:
        """As chat templates take them.

        Raises:
            UnsupportedParameter: something in it is no text.
            InvalidArgument: a part that the role needs is missing, or one that it has not.
        """
        where = f"messages.{place}"
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise InvalidArgument("tool_call_id goes with the role tool", param=f"{where}.tool_call_id")
        if self.tool_calls and self.role != "assistant":
            raise InvalidArgument("tool_calls go with the role assistant", param=f"{where}.tool_calls")
        if self.content is None and not self.tool_calls:
            raise InvalidArgument("a message has content", param=f"{where}.content")
        role = "system" if self.role == "developer" else self.role
        message: dict[str, Any] = {"role": role, "content": self._text(f"{where}.content")}
        for key in ("name", "tool_call_id"):
            if (value := getattr(self, key)) is not None:
                message[key] = value
        if self.tool_calls:
            message["tool_calls"] = [call.model_dump(exclude={"index"}) for call in self.tool_calls]
        return message

    def _text(self, where: str) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        for part in self.content:
            if part.type != "text":
                raise UnsupportedParameter(
                    f"content of the type {part.type!r} is not supported: only text", param=where
                )
            if part.text is None or part.model_extra:
                raise InvalidArgument('a part of a message is {"type": "text", "text"}', param=where)
        return "".join(part.text or "" for part in self.content)


Messages = Annotated[list[Message], Field(min_length=1, max_length=1024)]


def chat_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A chat as chat templates take it.

    Raises:
        UnsupportedParameter, InvalidArgument: names the message that cannot be used.
    """
    return [message.plain(place) for place, message in enumerate(messages)]


# ---- what may be called


class Function(BaseModel):
    """What can be called. ``parameters`` is a JSON schema; with ``strict`` or without, forced calls keep to it."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool; there are functions only."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: Function


class NamedFunction(BaseModel):
    """The function that is to be called."""

    model_config = ConfigDict(extra="forbid")

    name: Name


class NamedTool(BaseModel):
    """The tool that is to be called."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: NamedFunction


class Calling(BaseModel):
    """What a model may call, and whether it must."""

    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    def toolbox(self) -> Toolbox | None:
        """The same in our words; None where nothing may be called.

        Raises:
            InvalidArgument: what is to be called is not there.
        """
        choice = self.tool_choice
        if not self.tools:
            if choice not in (None, "none", "auto"):
                raise InvalidArgument("tool_choice names what is not in tools", param="tool_choice")
            return None
        if choice == "none":
            return None
        name = choice.function.name if isinstance(choice, NamedTool) else None
        if name is not None and name not in {tool.function.name for tool in self.tools}:
            raise InvalidArgument(f"there is no tool {name!r}", param="tool_choice")
        tools = tuple(tool.model_dump(exclude_none=True) for tool in self.tools)
        return Toolbox(tools, forced=choice not in (None, "auto"), name=name)


@dataclass(frozen=True)
class Toolbox:
    """What a model may call. ``forced``: it must call one of the tools, or the one with this ``name``."""

    tools: tuple[Mapping[str, Any], ...]
    forced: bool = False
    name: str | None = None


def check_one_form(toolbox: Toolbox | None, grammar_param: str | None) -> None:
    """An answer that may call tools keeps to no other form.

    Raises:
        UnsupportedParameter: it is asked to.
    """
    if toolbox is not None and grammar_param is not None:
        raise UnsupportedParameter(
            f"an answer that keeps to a {grammar_param} calls no tools: send one of them, or tool_choice none",
            param=grammar_param,
        )
