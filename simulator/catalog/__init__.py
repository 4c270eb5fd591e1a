"""GPUs, precisions and models, each value with its unit and source, and what fits where."""

from simulator.catalog.calibration import (
    Calibration,
    Communication,
    Evidence,
    PhaseError,
    Range,
    RooflineConstants,
    Scheduling,
    ServingEngine,
)
from simulator.catalog.catalog import Catalog, load_catalog, model_size, tier_size
from simulator.catalog.extrapolation import carried_over, nearest_tier, with_calibrations
from simulator.catalog.memory import MEMORY_UTILISATION, Candidates, candidate_configurations, fits, kv_capacity_tokens
from simulator.catalog.source import Source, SourceKind
from simulator.catalog.values import (
    Gpu,
    Interconnect,
    LlmModel,
    Precision,
    StatedValue,
    Tier,
)

__all__ = [
    "MEMORY_UTILISATION",
    "Calibration",
    "Candidates",
    "Catalog",
    "Communication",
    "Evidence",
    "Gpu",
    "Interconnect",
    "LlmModel",
    "PhaseError",
    "Precision",
    "Range",
    "RooflineConstants",
    "Scheduling",
    "ServingEngine",
    "Source",
    "SourceKind",
    "StatedValue",
    "Tier",
    "candidate_configurations",
    "carried_over",
    "fits",
    "kv_capacity_tokens",
    "load_catalog",
    "model_size",
    "nearest_tier",
    "tier_size",
    "with_calibrations",
]
