"""Many trials: where they run, what is tried next, what becomes of what they report."""
