"""The client's two ends of a model: text to ids to hidden states, and hidden states to logits to a token."""
