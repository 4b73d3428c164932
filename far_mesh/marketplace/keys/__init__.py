"""API keys: credentials that a wallet makes for its programs, with less power than its own sign-in."""
