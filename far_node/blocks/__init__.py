"""How a model is cut and a part of it run: source, cut, load, quantize, run, wire.

The only room of the node that the mesh may enter: the client cuts its two ends from the same cloth.
"""
