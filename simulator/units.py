"""Factors between units, each stated once."""

SECONDS_PER_H = 3600.0
BYTES_PER_GB = 1e9
GB_PER_MB = 1e-3
