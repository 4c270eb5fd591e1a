"""The exact model: Pyomo states it, HiGHS solves it."""

from policies.milp.policy import Milp

__all__ = ["Milp"]
