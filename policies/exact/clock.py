"""When a search stops."""

import time

import numpy as np


class Clock:
    """When to stop: seconds since the start, nodes, and effort."""

    def __init__(
        self, started: float, time_limit_s: float | None, max_nodes: int | None = None, effort: int | None = None
    ) -> None:
        self.started = started
        self.deadline = np.inf if time_limit_s is None else started + time_limit_s
        self.max_nodes = np.inf if max_nodes is None else max_nodes
        self.effort = np.inf if effort is None else effort
        self.spent = 0.0  # of the effort

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def first(self, share: float) -> "Clock":
        """A clock for the first share of the time."""
        limit_s = None if np.isinf(self.deadline) else share * (self.deadline - self.started)
        return Clock(self.started, limit_s)

    def late(self) -> bool:
        return time.perf_counter() >= self.deadline

    def up(self) -> bool:
        """Whether to stop, for whatever reason."""
        return self.spent >= self.effort or self.late()
