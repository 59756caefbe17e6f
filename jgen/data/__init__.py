"""Data sets as pure functions of (seed, step)."""
