"""Text in, tokens out, work paid."""
