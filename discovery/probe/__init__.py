"""Probing: what is decided about nodes that were asked something of which the answer is known. Pure.

Who asks them is :mod:`far_mesh.probe`; who keeps and shows what came of it is :mod:`discovery.service`.
"""
