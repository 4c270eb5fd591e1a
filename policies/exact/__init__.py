"""The `exact` policy: planning to proven optimality by branch and price."""

from policies.exact.policy import Exact

__all__ = ["Exact"]
