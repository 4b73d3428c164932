"""Is it alive, can it serve, and if not, why."""
