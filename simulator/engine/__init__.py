"""The engines: one interface, one set of results. `choose_engine` takes one by name."""

from simulator.engine.base import Engine, Process
from simulator.engine.choice import ENGINES, ChosenEngine, choose_engine
from simulator.engine.port import (
    CHUNK_REQUESTS,
    Arrivals,
    Controller,
    EngineSettings,
    Observation,
    Priority,
    Sink,
    Workload,
)
from simulator.engine.reference import ReferenceEngine

__all__ = [
    "CHUNK_REQUESTS",
    "ENGINES",
    "Arrivals",
    "ChosenEngine",
    "Controller",
    "Engine",
    "EngineSettings",
    "Observation",
    "Priority",
    "Process",
    "ReferenceEngine",
    "Sink",
    "Workload",
    "choose_engine",
]
