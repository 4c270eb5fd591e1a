"""Planners: each is a module and a line in `registry.py`; `checking` judges them all."""
