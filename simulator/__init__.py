"""The core of tokenfleet: values, catalog, delay models, planning problem, policy port and engine.

Nothing in here imports `policies`, `traces` or `experiments`; those build on this package.
"""
