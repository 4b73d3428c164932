"""A client that pays as it reads: the rules of :func:`~far_mesh.marketplace.payments.vouchers.next_promise`, kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from eth_account import Account

from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.payments.vouchers import Domain, Voucher, channel_id_of, next_promise, sign
from tests.far_mesh.marketplace.doubles import MODEL
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, PROMPT_PRICE, House, User
from tests.far_mesh.marketplace.inference.test_endpoints import PROMPT_TOKENS

SALT = b"\7" * 32
PROMPT_UNITS = PROMPT_TOKENS * PROMPT_PRICE

Tell = Callable[[dict[str, Any]], None]


class Payer:
    """A user with a channel, whose vouchers a key of the session signs. ``at`` is the house that is asked."""

    def __init__(self, user: User, deposit_units: int, salt: bytes = SALT) -> None:
        self.user = user
        self.key = str(Account.create().key.to_0x_hex())
        chain = user.house.rooms.chain
        self.domain = Domain(chain.chain_id, chain.escrow_address)
        self.channel_id = channel_id_of(user.wallet, salt)
        opened = ChainWallet(chain, user.key).open_channel(deposit_units, signer=address_of(self.key), salt=salt)
        user.house.loop.do(opened)
        self.deposit_units = deposit_units
        self.received_units = 0
        self.promised_units = 0

    def look(self) -> httpx.Response:
        """Let the gateway see that the channel is there."""
        return self.user.http.post("/api/channels", json={"channel_id": self.channel_id})

    def state(self) -> dict[str, Any]:
        """What the gateway says of the channel."""
        answer = self.user.http.get(f"/api/channels/{self.channel_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def voucher(self, units: int) -> Voucher:
        """One that is right."""
        return sign(self.domain, self.channel_id, units, self.key)

    def promise(self, units: int, at: House | None = None) -> httpx.Response:
        """Sign for ``units`` and send it, to another gateway if one is named."""
        url = (at or self.user.house).url + f"/api/channels/{self.channel_id}/vouchers"
        answer = httpx.post(url, json=self.voucher(units).document(), headers=self.user.http.headers)
        if answer.status_code == 200:
            self.promised_units = max(self.promised_units, units)
        return answer

    def promise_what_is_due(self, step_units: int) -> None:
        """Sign for what was received and one step more, when it is time to."""
        due = next_promise(
            received_units=self.received_units,
            promised_units=self.promised_units,
            deposit_units=self.deposit_units,
            step_units=step_units,
        )
        if due is not None:
            assert self.promise(due).status_code == 200

    def events(self, tell: Tell | None = None, at: House | None = None, **changes: Any) -> list[dict[str, Any]]:
        """A streamed answer over the channel; ``tell`` is called with each event as it comes."""
        return list(self.each_event(tell, at, **changes))

    def each_event(self, tell: Tell | None = None, at: House | None = None, **changes: Any) -> Iterator[dict[str, Any]]:
        """The same, as it comes."""
        body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12}
        body |= {"payment": f"channel:{self.channel_id}"} | changes
        url = (at or self.user.house).url + "/api/inference/distributed/generate"
        with httpx.stream("POST", url, json=body, headers=self.user.http.headers, timeout=30) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
                    if tell is not None:
                        tell(event)
                    yield event

    def read_and_pay(self, step_units: int, **changes: Any) -> list[dict[str, Any]]:
        """An answer, paid by the rules: no more is ever promised than was received and one step."""
        self.received_units += PROMPT_UNITS

        def pay(event: dict[str, Any]) -> None:
            if "token" in event:
                self.received_units += COMPLETION_PRICE
            if "token" in event or event.get("type") == "voucher_needed":
                self.promise_what_is_due(step_units)
            assert self.promised_units <= self.received_units + step_units

        return self.events(pay, **changes)
