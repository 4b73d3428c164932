"""The requests that were made: who asked, what was held, who did the work. Never what was said."""
