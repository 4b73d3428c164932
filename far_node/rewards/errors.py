"""What can go wrong between a provider, its key, a gateway and a chain."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class WalletKeyUnusable(FarError):
    """There is no wallet key, it is not one, or the password of its keystore is wrong."""

    code = "wallet_key_unusable"
    status = 400


class GatewayUnavailable(FarError):
    """The gateway cannot be reached."""

    code = "gateway_unavailable"
    retry = True
    status = 503


class GatewayUnintelligible(FarError):
    """What answers is no gateway of this version, or asks the wallet to sign what it should not."""

    code = "gateway_unintelligible"
    status = 502


class RpcUnavailable(FarError):
    """The chain's node cannot be reached, or does not say in time what became of a transaction."""

    code = "rpc_unavailable"
    retry = True
    status = 503


class RpcRefused(FarError):
    """The chain's node refuses, for example because the wallet cannot pay for gas."""

    code = "rpc_refused"
    status = 502


class ContractRefused(FarError):
    """The escrow contract refuses. ``facts['reason']`` is the name of its error."""

    code = "contract_refused"
    status = 502


class OtherChain(FarError):
    """The chain's node is on another chain than the gateway, or the escrow is not there."""

    code = "other_chain"
    status = 400


class NotProven(FarError):
    """A proof does not lead to what the chain announces."""

    code = "not_proven"
    status = 502
