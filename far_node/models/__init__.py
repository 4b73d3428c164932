"""The models on this machine: pulled from a hub or a registry, checked, kept within a size, found by their names.

No tensor is loaded here, and nothing heavy imported.
"""
