"""Asks nodes something of which the answer is known, as if it were work, and tells what came of it."""
