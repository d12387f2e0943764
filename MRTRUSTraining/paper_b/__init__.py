"""Preprocessing and measures of the second method that this package reproduces (two stages, RERN)."""
