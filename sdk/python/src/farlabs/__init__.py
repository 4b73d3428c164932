"""Client of Far Mesh: language models on pooled GPUs, paid by the token."""

from farlabs.aio import DEFAULT_URL, AsyncFarLabsClient, AsyncGeneration, AsyncOnWait, AsyncPayVoucher
from farlabs.amounts import UNITS_PER_FAR, WEI_PER_UNIT, format_far, parse_far
from farlabs.claims import UnsignedClaim, read_node_claim
from farlabs.client import FarLabsClient, Generation, OnWait, PayVoucher
from farlabs.errors import (
    AuthenticationError,
    ConflictError,
    ConnectionError,
    FarLabsError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PaymentRequiredError,
    RateLimitError,
    ReceiptError,
    ServerError,
    StreamError,
    TimeoutError,
    WebhookError,
)
from farlabs.exchange import Session
from farlabs.reading import Place
from farlabs.receipts import Receipt, Verified, verify_receipt, verify_receipts
from farlabs.signing import EscrowDomain, Signer, TypedData, TypedDataSigner, Voucher
from farlabs.wallet import AccountSigner, PrivateKeySigner
from farlabs.webhooks import verify_webhook

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_URL",
    "UNITS_PER_FAR",
    "WEI_PER_UNIT",
    "AccountSigner",
    "AsyncFarLabsClient",
    "AsyncGeneration",
    "AsyncOnWait",
    "AsyncPayVoucher",
    "AuthenticationError",
    "ConflictError",
    "ConnectionError",
    "EscrowDomain",
    "FarLabsClient",
    "FarLabsError",
    "ForbiddenError",
    "Generation",
    "InvalidRequestError",
    "NotFoundError",
    "OnWait",
    "PayVoucher",
    "PaymentRequiredError",
    "Place",
    "PrivateKeySigner",
    "RateLimitError",
    "Receipt",
    "ReceiptError",
    "ServerError",
    "Session",
    "Signer",
    "StreamError",
    "TimeoutError",
    "TypedData",
    "TypedDataSigner",
    "UnsignedClaim",
    "Verified",
    "Voucher",
    "WebhookError",
    "format_far",
    "parse_far",
    "read_node_claim",
    "verify_receipt",
    "verify_receipts",
    "verify_webhook",
]
