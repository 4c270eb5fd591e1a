"""Planners: each is a module and a line in `registry.py`; `checker.py` judges them all."""
