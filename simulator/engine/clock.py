"""The clock of a run: SimPy in whole ticks, with an explicit order of what happens at one time."""

import math
from collections.abc import Callable
from typing import Any

import simpy

from simulator.engine.port import Priority


class TickEnvironment(simpy.Environment):
    """An environment whose times are whole ticks: what a process waits for is rounded up."""

    def schedule(self, event: simpy.Event, priority: Any = Priority.NORMAL, delay: float = 0) -> None:
        super().schedule(event, priority, math.ceil(delay))


class Call(simpy.Event):
    """An event that has succeeded and calls one function when its time comes."""

    def __init__(self, env: simpy.Environment, callback: Callable[[simpy.Event], None]) -> None:
        self.env = env
        self.callbacks = [callback]
        self._value = None
        self._ok = True
