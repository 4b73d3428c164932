"""Who asks: sign-in with a wallet (EIP-4361) and bearer tokens."""
