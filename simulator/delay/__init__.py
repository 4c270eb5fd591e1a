"""Delay models: how long a request and an engine step take. To add one, add its line to `DELAY_MODELS`."""

from collections.abc import Callable

from simulator.catalog import Catalog
from simulator.delay.constant import ConstantDelay
from simulator.delay.port import DelayModel, StepCost, StepTicks, TwoPhaseDelay
from simulator.delay.roofline import RooflineDelay
from simulator.delay.slowed import SlowedDelay

DELAY_MODELS: dict[str, Callable[[Catalog], DelayModel]] = {
    "constant": lambda catalog: ConstantDelay(),
    "roofline": lambda catalog: RooflineDelay(engine=catalog.engines["vllm"]),
    "roofline-trtllm": lambda catalog: RooflineDelay(engine=catalog.engines["trtllm"]),
    "roofline-sglang": lambda catalog: RooflineDelay(engine=catalog.engines["sglang"]),
}

__all__ = [
    "DELAY_MODELS",
    "ConstantDelay",
    "DelayModel",
    "RooflineDelay",
    "SlowedDelay",
    "StepCost",
    "StepTicks",
    "TwoPhaseDelay",
]
