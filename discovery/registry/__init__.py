"""Weights by layer: how a model's files are read, cut, named and hashed, and the HTTP service that hands them out.

Nothing here loads a tensor: layers are cut by copying byte ranges of safetensors files.
"""
