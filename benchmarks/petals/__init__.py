"""Petals beside ours: the same model, the same network, the same run."""
