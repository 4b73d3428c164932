"""What can go wrong in the marketplace, as members of the one error family.

FarError
├─ MissingSetting · InvalidSetting · AddressInUse · AnvilMissing · ChainMismatch · DatabaseUnavailable    at start
├─ LeaseLost                                                                              between processes
├─ Unauthorized ─ NonceUnknown · NonceUsed · NonceExpired · SignInMismatch · BadSignature                   401
├─ PaymentRequired ─ InsufficientBalance · AllowanceTooLow                                                  402
├─ Forbidden ─ TierForbidden · KeyUnknown · TooManyKeys · KeyLimitReached                           403 404 409 429
├─ ModelUnknown · RequestUnknown · NotFound · MethodNotAllowed                                              404 405
├─ Conflict ─ InsufficientFunds · QuoteInvalid · BodyTooLarge · UnsupportedParameter · RateLimited          4xx
├─ ChainUnavailable ─ SettlementDelayed · TransactionReverted · NotEnoughNodes · ShuttingDown · GenerationFailed ·
│  FeeMismatch                                                                                             502 503
├─ QueueFull · QueueTimeout · RequestTimeout · TooManyConnections                                        429 503 408
├─ JobsClosed · JobUnknown · TooManyJobs · JobTimedOut · JobAbandoned · SealBroken · WebhookSecretMissing      jobs
└─ UrlRefused · OutboundFailed                                                               URLs that users name
"""

from __future__ import annotations

from discovery.protocol.errors import FarError
from discovery.web.errors import AddressInUse as AddressInUse
from discovery.web.errors import BadSignature as BadSignature
from discovery.web.errors import BodyTooLarge as BodyTooLarge
from discovery.web.errors import DatabaseUnavailable as DatabaseUnavailable
from discovery.web.errors import InvalidSetting as InvalidSetting
from discovery.web.errors import MethodNotAllowed as MethodNotAllowed
from discovery.web.errors import ModelUnknown as ModelUnknown
from discovery.web.errors import NotFound as NotFound
from discovery.web.errors import OutboundFailed as OutboundFailed
from discovery.web.errors import RateLimited as RateLimited
from discovery.web.errors import RequestTimeout as RequestTimeout
from discovery.web.errors import Unauthorized as Unauthorized
from discovery.web.errors import UnsupportedMediaType as UnsupportedMediaType
from discovery.web.errors import UnsupportedParameter as UnsupportedParameter
from discovery.web.errors import UrlRefused as UrlRefused


class MissingSetting(FarError):
    """A setting without which nothing is safe is absent."""

    code = "missing_setting"


class AnvilMissing(FarError):
    """The embedded chain needs the anvil program, and it is nowhere."""

    code = "anvil_missing"


class ChainMismatch(FarError):
    """The database was written beside another chain, or the chain is not the one of the settings."""

    code = "chain_mismatch"


class LeaseLost(FarError):
    """Somebody else does now what this process was about to write down: it is too late for that."""

    code = "lease_lost"
    retry = True
    status = 503


class NonceUnknown(Unauthorized):
    """A sign-in message with a nonce that was never given out."""

    code = "nonce_unknown"


class NonceUsed(Unauthorized):
    """A sign-in message that has signed somebody in already."""

    code = "nonce_used"


class NonceExpired(Unauthorized):
    """A sign-in message that came too late."""

    code = "nonce_expired"


class SignInMismatch(Unauthorized):
    """A sign-in message for another domain, URI, chain or wallet, or not in the form of EIP-4361."""

    code = "sign_in_mismatch"


class Forbidden(FarError):
    """Whoever asks is known, and may not do this: the role or the scope is missing, or only the wallet itself may."""

    code = "forbidden"
    status = 403


class TierForbidden(Forbidden):
    """The account is in a lower tier than the request asks for."""

    code = "tier_forbidden"


class KeyUnknown(FarError):
    """No such API key, or it is somebody else's."""

    code = "key_not_found"
    status = 404


class KeyLimitReached(FarError):
    """What an API key may spend in a day is spent, or held by requests under way."""

    code = "key_limit_reached"
    retry = True
    status = 429


class PaymentRequired(FarError):
    """The request cannot be paid."""

    code = "payment_required"
    status = 402


class InsufficientBalance(PaymentRequired):
    """The most that the request can cost is more than what is available."""

    code = "insufficient_balance"


class AllowanceTooLow(PaymentRequired):
    """The user's standing spending allowance on chain does not cover the request."""

    code = "allowance_too_low"


class RequestUnknown(FarError):
    """No such request, or it is somebody else's."""

    code = "request_not_found"
    status = 404


class Conflict(FarError):
    """The books say that something else has been done under this key already."""

    code = "conflict"
    status = 409


class TooManyKeys(Conflict):
    """A wallet has as many API keys as it may have."""

    code = "too_many_keys"


class InsufficientFunds(Conflict):
    """An account of the books has less than an act would take."""

    code = "insufficient_funds"


class FeeMismatch(FarError):
    """The fee that the escrow takes is not the one that the price was made with. The operator has to set it."""

    code = "fee_mismatch"
    status = 503


class QuoteInvalid(FarError):
    """Not a quote of ours, or about another model, tier or wallet, or too old: ask for another."""

    code = "quote_invalid"
    status = 400


class QueueFull(FarError):
    """So many requests wait for their turn that there is no room for another; of all, or of one account."""

    code = "queue_full"
    retry = True
    status = 429


class QueueTimeout(FarError):
    """A request has waited for its turn for as long as one may; nothing was charged."""

    code = "queue_timeout"
    retry = True
    status = 503


class TooManyConnections(FarError):
    """As many connections are open as may be."""

    code = "too_many_connections"
    retry = True
    status = 503


class ChainUnavailable(FarError):
    """The chain's node does not answer."""

    code = "chain_unavailable"
    retry = True
    status = 503


class SettlementDelayed(ChainUnavailable):
    """The money of a request could not be locked in time."""

    code = "settlement_delayed"


class TransactionReverted(FarError):
    """The escrow refused a transaction. ``facts['reason']`` is the name of its error."""

    code = "transaction_reverted"
    status = 502


class NotEnoughNodes(FarError):
    """Fewer nodes are there than the model asks for."""

    code = "not_enough_nodes"
    retry = True
    status = 503


class ShuttingDown(FarError):
    """This gateway is about to stop."""

    code = "shutting_down"
    retry = True
    status = 503


class GenerationFailed(FarError):
    """The answer broke off in the middle; nothing is charged."""

    code = "generation_failed"
    retry = True
    status = 502


class JobsClosed(FarError):
    """Jobs need a key that encrypts them, and the operator has set none."""

    code = "jobs_closed"
    status = 503


class JobUnknown(FarError):
    """No such job, or it is somebody else's, or its time is over."""

    code = "job_not_found"
    status = 404


class TooManyJobs(FarError):
    """A wallet has as many jobs waiting as it may have."""

    code = "too_many_jobs"
    retry = True
    status = 429


class JobTimedOut(FarError):
    """A job could not begin in its time; nothing was charged."""

    code = "job_timed_out"
    retry = True
    status = 503


class JobAbandoned(FarError):
    """Whoever worked on a job died of it, as often as is allowed; nothing was charged."""

    code = "job_abandoned"
    status = 500


class SealBroken(FarError):
    """What was encrypted cannot be read: the key that wrote it is not among those of the settings any more."""

    code = "seal_broken"
    status = 500


class WebhookSecretMissing(Conflict):
    """A webhook is wanted by a wallet that has no secret to sign it with yet."""

    code = "webhook_secret_missing"
