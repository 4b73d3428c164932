"""Messages that a gateway sends when a job has ended, as Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Mapping
from typing import Any

from farlabs.errors import WebhookError
from farlabs.json_text import parsed

TOLERANCE_SECONDS = 300.0
_PREFIX = "whsec_"


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, *, tolerance: float = TOLERANCE_SECONDS
) -> dict[str, Any]:
    """What a message says, with its ``id``, once it is certain that the gateway sent it, and not long ago.

    It may come twice, under the same ``id``.

    Args:
        secret: of ``webhook_secret()``.
        body: as it came, not parsed and written again.
        tolerance: seconds by which clocks may differ, and after which a message is too old.

    Raises:
        WebhookError: ``webhook_invalid``, with the first thing that is wrong.
    """
    told = {name.lower(): value for name, value in headers.items()}
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if not told.get(name):
            raise _wrong(f"{name} is missing")
    message_id, stamp = told["webhook-id"], told["webhook-timestamp"]
    if re.fullmatch(r"[0-9]{1,12}", stamp) is None:
        raise _wrong("webhook-timestamp is no time")
    if abs(time.time() - int(stamp)) > tolerance:
        raise _wrong("the message is not of now")
    said = f"{message_id}.{stamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(_key_of(secret), said, "sha256"))
    if not any(hmac.compare_digest(expected, one.encode()) for one in told["webhook-signature"].split(" ")):
        raise _wrong("the message is not signed with this secret")
    content = parsed(body)
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict) or "type" not in content:
        raise _wrong("the message has no type and data")
    return {"id": message_id, **content}


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True) if secret.startswith(_PREFIX) else b""
    except ValueError:
        key = b""
    if not key:
        raise _wrong("a secret begins with whsec_, and the rest is base64")
    return key


def _wrong(message: str) -> WebhookError:
    return WebhookError(message, code="webhook_invalid")
