"""``far-node doctor``: is anything wrong with this machine, and what is to be done?

:mod:`.measure` finds facts, :mod:`.judge` says what they mean and looks at nothing else, :mod:`.examine` does both for
all that an owner asks about.
"""
