"""A provider's money, seen from its own machine: asked of a marketplace, proven against the chain, taken out.

Nothing of the marketplace's own code is used here: whoever checks should not have to trust what is checked.
"""
