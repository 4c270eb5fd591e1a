"""The random problems of the conformance suite, under the name that the tests use."""

from policies.random_problem import random_problem

__all__ = ["random_problem"]
