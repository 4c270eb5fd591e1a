"""Robust planning: a fleet that stays good where delay, error or demand are worse than planned (docs/planning.md)."""
