"""Effective coverage against the checker, which has an arithmetic of its own: as much is allowed, and no more."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.checking.plan import check
from policies.checking.random_problem import random_problem
from policies.heuristics.coverage import largest_share, share_that_fits
from policies.heuristics.placement import Placement
from simulator.planning.plan import PlanStatus, build_plan

MORE = 1.001


def accepted(problem, placement):
    plan = build_plan(problem, placement.arrays(), policy="test", status=PlanStatus.FEASIBLE, seconds=0.0)
    return check(problem, plan).accepted


@pytest.mark.parametrize("seed", range(8))
def test_as_much_as_fits_is_accepted_and_more_is_refused(seed):
    """Deployments one after the other, filled until nothing fits; what ends below one is full."""
    problem = random_problem(types=4, models=3, tiers=3, seed=seed)
    q = problem.query_types
    tight = [replace(t, arrival_per_h=40 * t.arrival_per_h, delay_slo_s=0.6 * t.delay_slo_s) for t in q]
    problem = random_problem(types=4, models=3, tiers=3, seed=seed, query_types=tight)
    draw = np.random.default_rng(seed)
    full = 0
    for _ in range(25):
        placement = Placement.empty(problem)
        for _ in range(int(draw.integers(1, 4))):
            i, a = int(draw.integers(4)), draw.integers(len(problem.configurations), size=1)
            before = placement.share[i].sum()
            moves = placement.moves(i, a, grow=True)
            if moves.coverage[0] <= 0:
                continue
            placement.make(i, moves, 0)
            assert accepted(problem, placement)
            if before + moves.coverage[0] < 0.999 and moves.replicas[0] == problem.max_replicas:
                full += 1
                more = placement.copy()
                more.share[i, problem.pair_index[a[0]]] += moves.coverage[0] * (MORE - 1)
                assert not accepted(problem, more)
    assert full > 3


@pytest.mark.parametrize("seed", range(4))
def test_the_largest_share_keeps_the_limits_of_the_type(seed):
    problem = random_problem(types=4, models=3, tiers=3, seed=seed)
    share = largest_share(problem)
    mean = share * problem.delay_s / problem.delay_slo_s[:, None], share * problem.error / problem.error_slo[:, None]
    assert (np.maximum(*mean) <= 1 + 1e-9).all()
    assert (np.maximum(*mean)[problem.allowed & (share < 1)] >= 1 - 1e-9).all()


@given(left=st.floats(-10, 10) | st.just(np.inf), use=st.floats(0, 10))
def test_a_share_is_between_nothing_and_all(left, use):
    share = float(share_that_fits(np.array(left), np.float64(use), 1.0))
    assert 0 <= share <= 1
    if left >= 0:
        assert share * use <= left * (1 + 1e-9) or share == 0
        assert share == 1 or share * use >= left * (1 - 1e-9)
    elif left < -1e-8:
        assert share == 0
