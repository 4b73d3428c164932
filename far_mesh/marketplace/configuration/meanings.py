"""What each setting means, in the words of docs/operators.md, for files of settings."""

MEANINGS = {
    "data_dir": "where the SQLite file lies",
    "database_url": "sqlite+aiosqlite:///… or postgresql+asyncpg://…",
    "host": "address to listen on",
    "port": "port to listen on",
    "gateway_name": "this process among several; the same after a restart",
    "public_domain": "domain that a sign-in message must name",
    "public_uri": "URI that it must name; audience of bearer tokens",
    "shutdown_seconds": "how long answers under way may go on after the gateway was told to stop (Stopping)",
    "max_body_bytes": "longer requests are refused",
    "trusted_proxies": "list of addresses and networks whose X-Forwarded-For or Forwarded counts (Behind a proxy)",
    "max_connections": "connections over HTTP at once; more are answered with 503 and closed (Connections)",
    "header_seconds": "a connection that has not sent a whole request head after this long is closed",
    "body_seconds": "a request whose body is not there after this long is refused with 408",
    "keep_alive_seconds": "a connection that asks for nothing more is closed after this long; keep it above your proxy's own",  # noqa: E501
    "reader_seconds": "who takes nothing of an answer for this long is cut off, and pays for what was delivered",
    "redis_url": "redis://…, rediss://… or unix://…: where several gateways count what was asked for; without it each counts by itself (Limits)",  # noqa: E501
    "public_requests_per_minute": "requests of an address to routes that need no credential; 0: no limit",
    "sign_ins_per_minute": "sign-in messages and sign-ins of an address, together; 0: no limit",
    "failures_per_minute": "sign-ins of an address that fail, and as many credentials that are none; 0: no limit",
    "account_requests_per_minute": "requests of an account that are no requests for inference; 0: no limit",
    "grpc_port": "port for gRPC, 50051 by custom; 0: closed",
    "grpc_tls_cert": "certificate chain for gRPC, PEM; without one, and on an address that others reach, the port is not opened",  # noqa: E501
    "grpc_tls_key": "its private key, PEM, without a password",
    "grpc_insecure": "gRPC in clear text for others too: behind a proxy that speaks TLS",
    "chain_rpc_url": "JSON-RPC of the chain",
    "chain_id": "its id; another chain at that URL is refused",
    "token_address": "the FAR token",
    "escrow_address": "the escrow",
    "settler_private_key": "key with the SETTLER role, and gas money",
    "confirmations": "blocks on top before an event or a transaction counts",
    "reorg_blocks": "for so many blocks after a transaction or a deposit counted it is watched whether its block is still there",  # noqa: E501
    "bump_seconds": "a transaction that is in no block after this long is signed again with higher fees",
    "max_fee_gwei": "the most that a transaction may offer per gas, in 1e-9 of the chain's coin; 0: no limit",
    "chain_start_block": "first block to look at for deposits: that of the deployment",
    "deposit_poll_seconds": "how often to look for deposits",
    "lock_seconds": "how long a request's money stays locked, 300 to 86400",
    "lock_timeout_seconds": "how long to wait for the lock",
    "reconcile_seconds": "how often the books are compared with the chain; 0: never",
    "settle_seconds": "after this long what was earned is settled in a batch, however little it is",
    "settle_threshold_units": "as soon as one provider is owed this much, everything is settled that can be; without an escrow, this provider is paid",  # noqa: E501
    "payout_address_delay_seconds": "so long after a provider has said where it is to be paid by transfer it counts (payments.md)",  # noqa: E501
    "unsettled_limit_units": "what a user may owe, requests under way included, before a batch charges it; above it each request gets an escrow of its own. 0: always (payments.md)",  # noqa: E501
    "voucher_step_units": "how far an answer over a payment channel may be ahead of its vouchers",
    "voucher_seconds": "how long an answer waits for a voucher before it ends where it is",
    "payment_provider": "who verifies deposits and signs payouts: evm, hyperliquid, solana, none, or one of another package (payments.md)",  # noqa: E501
    "deposit_address": "where deposits by plain transfer go; with evm, in the place of FAR_ESCROW_ADDRESS (payments.md)",  # noqa: E501
    "solana_rpc_url": "JSON-RPC of a Solana node; needed for solana",
    "solana_mint": "the SPL token that is paid with; needed for solana",
    "solana_private_key": "key pair that pays, base58 or a list; needed for solana",
    "metrics_token": "bearer token with which /metrics is read, 16 characters or more; without one it is read from this machine (metrics.md)",  # noqa: E501
    "log_level": "which log lines are written: debug, info, warning or error and worse",
    "jwt_secret": "at least 32 random bytes; signs bearer tokens",
    "jwt_other_secrets": "list of further secrets whose tokens count; to replace one",
    "jwt_seconds": "lifetime of a bearer token",
    "nonce_seconds": "lifetime of a sign-in message",
    "auth_cache_seconds": "how long a gateway remembers that a token or a key counts: so long one that was revoked at another gateway may still work here. 0: it asks the database at every request",  # noqa: E501
    "operators": "list of the wallets that are operators",
    "dashboard": "whether pages for people are served beside the interface, where they were built",
    "geoip_db": "city database, by which nodes are found on the map (Where nodes are)",
    "location": "latitude and longitude of this gateway, such as 52.5,13.4, for first guesses at round trips",
    "initial_peers": "list of addresses of swarm peers; not needed with FAR_DISCOVERY, or in a private swarm whose file names some",  # noqa: E501
    "public_peers": "list of those that new nodes are told (/bootstrap), where others cannot reach FAR_INITIAL_PEERS",
    "swarm_maddrs": "list of multiaddrs where this gateway listens for nodes, such as /ip4/0.0.0.0/tcp/31340: those behind routers then come to it directly, where the routers let them, and not through relays",  # noqa: E501
    "discovery": "address of a discovery service that names more peers to join through; while it does not answer, those of FAR_INITIAL_PEERS do",  # noqa: E501
    "probers": "list of the peer ids of probers whose signed reports to FAR_DISCOVERY count in the scores of nodes, 64 at most; without it nobody's do",  # noqa: E501
    "dht_prefix": "DHT prefix of the swarm; swarms that share peers have each their own",
    "swarm": "file of a private swarm that has invited the gateway (Private swarms); its name is the prefix then",
    "invite": "the invitation to it, a client's, or a file that has it",
    "models": "list of models on sale, below",
    "tiers": 'object: what is to be otherwise in the table of tiers, such as {"premium": {"requests_per_minute": 1000}}',  # noqa: E501
    "fee_bps": "the platform's part of what users pay, in basis points; what the escrow takes, or requests are refunded with fee_mismatch",  # noqa: E501
    "cached_discount_bps": "discount on tokens of a prompt that all nodes knew from before, in basis points",
    "requests_per_node": "open requests that a node is reckoned to carry; prices rise when there are more than half of that. 0: they do not",  # noqa: E501
    "quote_seconds": "how long a quote is kept",
    "default_max_tokens": "when a request names none",
    "generation_seconds": "after this an answer ends where it is; keep it below the lock",
    "queue_size": "requests for a model that may wait for their turn (The queue)",
    "queue_size_per_account": "of these, by one account",
    "queue_seconds": "how long a request may wait",
    "model_sessions": "sessions of a model that are open at once, at most; 0: as many as its nodes take",
    "jobs_keys": "list of keys that encrypt jobs, 32 bytes in hexadecimal each; the first one writes, all of them read. Without one, jobs are closed",  # noqa: E501
    "jobs_at_once": "jobs that this gateway works on at once; 0: it leaves them to others",
    "jobs_per_wallet": "jobs of a wallet that may wait or run",
    "jobs_attempts": "how often a job is begun before it has failed",
    "jobs_seconds": "a job that could not begin for so long has failed",
    "jobs_result_seconds": "for so long after its end a job can be read; then it is deleted",
    "webhook_attempts": "how often a message to a webhook is sent before it is given up",
    "outbound_ports": "list of the ports that URLs of users may name",
    "outbound_networks": "list of networks that URLs of users may lead to although they are not public",
    "outbound_http": "URLs of users may do without TLS: for tests",
}
