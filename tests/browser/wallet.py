"""A wallet for the browser: announced as EIP-6963 says, asked as EIP-1193 says, its key in the test's own process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct
from playwright.sync_api import BrowserContext

from far_mesh.marketplace.chain.anvil import CHAIN_ID

NAME = "Test wallet"
REJECTED, UNSUPPORTED, UNKNOWN_CHAIN = 4001, 4200, 4902
"""EIP-1193 and EIP-3326."""

_NEEDS_CONSENT = (
    *("eth_requestAccounts", "wallet_requestPermissions", "personal_sign", "eth_signTypedData_v4"),
    *("eth_sendTransaction", "wallet_switchEthereumChain", "wallet_addEthereumChain"),
)
_BINDING = "__farTestWallet"
_SCRIPT = """
(() => {
  const listeners = new Map();
  const emit = (name, value) => (listeners.get(name) ?? []).forEach((listener) => listener(value));
  const provider = {
    async request({ method, params }) {
      const answer = await window.BINDING(method, JSON.stringify(params ?? []));
      for (const [name, value] of answer.events ?? []) emit(name, value);
      if (answer.error) throw Object.assign(new Error(answer.error.message), answer.error);
      return answer.result;
    },
    on(name, listener) { listeners.set(name, [...(listeners.get(name) ?? []), listener]); return provider; },
    removeListener(name, listener) {
      listeners.set(name, (listeners.get(name) ?? []).filter((one) => one !== listener));
      return provider;
    },
  };
  const icon = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1 1'/>";
  const info = { uuid: "0f3f4f6e-2b1c-4f67-9a51-5a3c1d0c7b11", name: "NAME", icon, rdns: "test.far-mesh.wallet" };
  const announce = () => window.dispatchEvent(
    new CustomEvent("eip6963:announceProvider", { detail: Object.freeze({ info, provider }) }),
  );
  window.addEventListener("eip6963:requestProvider", announce);
  announce();
})();
""".replace("BINDING", _BINDING).replace("NAME", NAME)


class Refused(Exception):
    """What the wallet answers instead of a result."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class Wallet:
    """Owner of one account on the local chain.

    Attributes:
        chain_id: which chain the wallet is on; only on the local one can it do anything.
        rejects: methods to which its owner says no, each once.
        asked: the methods to which its owner has said yes, in order.
    """

    def __init__(self, key: str, rpc_url: str, chain_id: int = CHAIN_ID) -> None:
        self._account = Account.from_key(key)
        self._rpc_url = rpc_url
        self._is_connected = False
        self.address = str(self._account.address)
        self.chain_id = chain_id
        self._methods: dict[str, Callable[[Any], Any]] = {
            "eth_accounts": lambda _: self._accounts(),
            "eth_requestAccounts": self._connect,
            "eth_chainId": lambda _: hex(self.chain_id),
            "eth_sendTransaction": self._send,
            "eth_signTypedData_v4": self._sign_typed,
            "personal_sign": self._sign,
            "wallet_requestPermissions": self._permit,
            "wallet_revokePermissions": self._forget,
            "wallet_switchEthereumChain": self._switch,
        }
        self.rejects: list[str] = []
        self.asked: list[str] = []

    def install(self, context: BrowserContext) -> None:
        """Be there in every page of ``context`` before its own scripts are."""
        context.expose_binding(_BINDING, lambda _source, method, params: self._answer(method, json.loads(params)))
        context.add_init_script(_SCRIPT)

    def _answer(self, method: str, params: Any) -> dict[str, Any]:
        before = (self.chain_id, self._is_connected)
        try:
            result = self._do(method, params)
        except Refused as error:
            return {"error": {"code": error.code, "message": error.message, "data": error.data}}
        events: list[list[Any]] = []
        if self.chain_id != before[0]:
            events.append(["chainChanged", hex(self.chain_id)])
        if self._is_connected != before[1]:
            events.append(["accountsChanged", self._accounts()])
        return {"result": result, "events": events}

    def _do(self, method: str, params: Any) -> Any:
        if method in self.rejects:
            self.rejects.remove(method)
            raise Refused(REJECTED, "User rejected the request.")
        if method in _NEEDS_CONSENT:
            self.asked.append(method)
        if method in self._methods:
            return self._methods[method](params)
        if method.startswith(("wallet_", "personal_")):
            raise Refused(UNSUPPORTED, f"{method} is not supported")
        return self._ask_chain(method, params)

    def _accounts(self) -> list[str]:
        return [self.address] if self._is_connected else []

    def _connect(self, _: Any) -> list[str]:
        self._is_connected = True
        return self._accounts()

    def _permit(self, _: Any) -> list[dict[str, str]]:
        self._is_connected = True
        return [{"parentCapability": "eth_accounts"}]

    def _forget(self, _: Any) -> None:
        self._is_connected = False

    def _switch(self, params: Any) -> None:
        wanted = int(params[0]["chainId"], 16)
        if wanted != CHAIN_ID:
            raise Refused(UNKNOWN_CHAIN, f"Unrecognized chain ID {wanted}.")
        self.chain_id = wanted

    def _sign(self, params: Any) -> str:
        signed = self._account.sign_message(encode_defunct(hexstr=params[0]))
        return str(signed.signature.to_0x_hex())

    def _sign_typed(self, params: Any) -> str:
        signed = self._account.sign_typed_data(full_message=json.loads(params[1]))
        return str(signed.signature.to_0x_hex())

    def _send(self, params: Any) -> str:
        call = {name: value for name, value in params[0].items() if name in ("from", "to", "data", "value", "gas")}
        tip = 10**9
        base = int(self._ask_chain("eth_getBlockByNumber", ["latest", False])["baseFeePerGas"], 16)
        transaction = {
            "type": 2,
            "chainId": CHAIN_ID,
            "nonce": int(self._ask_chain("eth_getTransactionCount", [self.address, "pending"]), 16),
            "to": call["to"],
            "data": call.get("data", "0x"),
            "value": int(call.get("value", "0x0"), 16),
            "gas": int(call.get("gas") or self._ask_chain("eth_estimateGas", [call]), 16),
            "maxPriorityFeePerGas": tip,
            "maxFeePerGas": 2 * base + tip,
        }
        raw = self._account.sign_transaction(transaction).raw_transaction.to_0x_hex()
        return str(self._ask_chain("eth_sendRawTransaction", [raw]))

    def _ask_chain(self, method: str, params: Any) -> Any:
        if self.chain_id != CHAIN_ID:
            raise Refused(-32603, f"chain {self.chain_id} cannot be reached")
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = httpx.post(self._rpc_url, json=question, timeout=60).json()
        if "error" in answer:
            said = answer["error"]
            raise Refused(said["code"], said["message"], said.get("data"))
        return answer["result"]
