"""A model that calls a function of yours. Its chat template has to know of tools.

FAR_GATEWAY=… FAR_API_KEY=… FAR_MODEL=… python examples/tools.py
"""

import json
import os
from typing import Any

from farlabs import FarLabsClient
from farlabs.parameters import Tool

GATEWAY = os.environ.get("FAR_GATEWAY", "http://127.0.0.1:8000")
MODEL = os.environ.get("FAR_MODEL", "far-demo")

SHAPE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Tool] = [{"type": "function", "function": {"name": "weather", "parameters": SHAPE}}]


def weather(city: str) -> str:
    """It is always the same there."""
    return f"12 °C and rain in {city}"


messages: list[Any] = [{"role": "user", "content": "What is the weather in Bonn?"}]
with FarLabsClient(GATEWAY, api_key=os.environ["FAR_API_KEY"]) as client:
    asked = client.chat(MODEL, messages, tools=TOOLS).result()
    calls = asked.tool_calls or []
    messages.append({"role": "assistant", "content": asked.text, "tool_calls": [call.model_dump() for call in calls]})
    for call in calls:
        print(f"calls {call.function.name}({call.function.arguments})")
        told = weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": told})
    if calls:
        asked = client.chat(MODEL, messages, tools=TOOLS, tool_choice="none").result()
    print(asked.text)
