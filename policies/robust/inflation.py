"""The same problem in a world where everything takes longer and errs more than planned."""

from dataclasses import replace

import numpy as np

from simulator.planning.problem import CapacityRows, FloatArray, PlanningProblem


def inflated(problem: PlanningProblem, factor: float) -> PlanningProblem:
    """The problem with delay and error times the factor, or as much of it as each type can bear."""
    return worse(problem, bearable(problem, factor))


def bearable(problem: PlanningProblem, factor: float) -> FloatArray:
    """Shape (types,): the factor, or the largest one from 1 on at which some configuration alone serves the type."""
    most = np.minimum(
        _ratio(problem.delay_slo_s[:, None], problem.delay_s), _ratio(problem.error_slo[:, None], problem.error)
    )
    best = np.where(problem.allowed, most, 0.0).max(axis=1, initial=0.0)
    return np.asarray(np.clip(np.minimum(factor, best), 1.0, None))


def worse(problem: PlanningProblem, factor: FloatArray) -> PlanningProblem:
    """The problem with delay and error times the factor of each type, shape (types,).

    Under `paper` rows the KV cache holds the tokens in flight, which are as many more as requests stay longer.
    """
    of_type = factor[:, None]
    kv = problem.kv * (of_type if problem.capacity_rows is CapacityRows.PAPER else 1.0)
    return replace(problem, delay_s=problem.delay_s * of_type, error=problem.error * of_type, kv=kv)


def _ratio(limit: FloatArray, value: FloatArray) -> FloatArray:
    return np.asarray(np.divide(limit, value, out=np.full(value.shape, np.inf), where=value > 0))
