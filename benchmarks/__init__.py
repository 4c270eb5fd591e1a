"""Benchmarks: run as modules from the repository root, `python -m benchmarks.NAME`. Not part of the package."""
