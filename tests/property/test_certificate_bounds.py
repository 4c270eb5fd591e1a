"""No multipliers prove more than the truth: random certificates against all placements of a tiny problem.

Random multipliers prove little, and a verifier that is wrong could hide behind that. So they climb: each step keeps
what the verifier says is better, and a verifier that can be talked into too high a bound is led there.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from policies.checking.bound import Restriction, node_bound
from policies.checking.certificate import Certificate, Duals, Group, Node, Split
from policies.checking.universe import Universe
from policies.checking.verify import verify
from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.planning.problem import CapacityRows, PlanningProblem, QueryType
from tests.exploring import examples
from tests.property.test_planners_exhaustive import placements, problems, routed_cost_usd

STEPS = 250  # of a climb
TOLERANCE = 1e-6
OPTIONS = {"deadline": None, "phases": set(Phase) - {Phase.shrink}}  # tiny already, and each takes a while

seeds = st.integers(0, 2**32 - 1)


def costs_usd(problem):
    """Replicas and cost of the cheapest plan of every placement that has one."""
    costs = [(replicas, routed_cost_usd(problem, replicas)) for replicas in placements(problem)]
    return [(replicas, cost) for replicas, cost in costs if cost is not None]


def above(cost_usd):
    """Just more than what is true."""
    return cost_usd + TOLERANCE * max(1.0, cost_usd)


def deployed(replicas):
    """The options of a placement: configuration and replicas."""
    return {(a, r) for a, r in enumerate(replicas.tolist()) if r}


def options(universe):
    return list(zip(universe.configuration.tolist(), universe.replicas.tolist(), strict=True))


class Climb:
    """Duals as one vector of numbers in units of the problem, climbing on what they prove in a node."""

    def __init__(self, problem, rng, path=()):
        self.problem, self.rng, self.path = problem, rng, path
        self.universe = Universe(problem)
        types = len(problem.query_types)
        usd = float(problem.rent_usd.min()) + 1e-3
        with_limits = [i for i in range(types) if problem.error_slo[i] > 0]
        self.covers = [(i, weight) for i in with_limits for weight in (0.0, 1.0, float(rng.random()))]
        self.unit = np.concatenate(
            [
                np.full(types, 2 * usd),
                usd / problem.delay_slo_s,
                usd / np.maximum(problem.error_slo, 0.1),
                [0.3, usd / problem.storage_capacity_gb],
                np.full(len(self.covers) + len(path), usd),
            ]
        )
        self.lowest = np.where(np.arange(len(self.unit)) < types, -np.inf, 0.0)
        self.values = np.maximum(self.lowest, rng.normal(0.3, 1.0, len(self.unit)) * self.unit)

    def duals(self, values):
        types, covers = len(self.problem.query_types), len(self.covers)
        demand, delay, error, rest = np.split(values, [types, 2 * types, 3 * types])
        y, omega = rest[2 : 2 + covers], rest[2 + covers :]
        return Duals(
            demand=tuple(demand.tolist()),
            delay=tuple(delay.tolist()),
            error=tuple(error.tolist()),
            budget=float(rest[0]),
            storage=float(rest[1]),
            covers=tuple((i, w, float(value)) for (i, w), value in zip(self.covers, y, strict=True)),
            restrictions=tuple((n, float(value)) for n, value in enumerate(omega)),
        )

    def bound_usd(self, values):
        alive = np.arange(len(self.universe.configuration))
        for restriction in self.path:
            if not restriction.above:
                alive = alive[restriction.count[alive] <= restriction.limit]
        return node_bound(self.universe, self.duals(values), self.path, alive)[0]

    def top(self):
        """The best duals found, and what they prove."""
        best_usd, scale = self.bound_usd(self.values), 1.0
        for _ in range(STEPS):
            chosen = self.rng.random(len(self.unit)) < self.rng.choice([0.1, 0.3, 1.0])
            step = self.rng.normal(0.0, scale, len(self.unit)) * self.unit * chosen
            trial = np.maximum(self.lowest, self.values + step)
            trial[self.rng.random(len(trial)) < 0.03] = 0.0
            if (value := self.bound_usd(trial)) > best_usd:
                best_usd, self.values = value, trial
                scale *= 1.3
            else:
                scale = max(0.01, scale * 0.96)
        return self.duals(self.values), best_usd


def certificate(bound_usd, *nodes):
    return Certificate(problem="tiny", bound_usd=bound_usd, nodes=nodes)


@settings(max_examples=examples(15), **OPTIONS)
@given(problem=problems(), seed=seeds)
def test_no_duals_prove_more_than_the_optimum(problem, seed):
    optimum_usd = min((cost for _, cost in costs_usd(problem)), default=None)
    rng = np.random.default_rng(seed)
    for _ in range(2):
        start = Climb(problem, rng)
        verdict = verify(problem, certificate(1e9, Node(duals=start.duals(start.values))))
        duals, top_usd = start.top()
        assert verdict.root_bound_usd <= top_usd
        if optimum_usd is not None:
            assert top_usd <= above(optimum_usd)
            for factor in (1.0, 1.05, 2.0):
                assert not verify(problem, certificate(above(optimum_usd) * factor, Node(duals=duals))).accepted
        assert verify(problem, certificate(top_usd, Node(duals=duals))).accepted


@settings(max_examples=examples(15), **OPTIONS)
@given(problem=problems(), seed=seeds, data=st.data())
def test_no_tree_proves_more_than_the_optimum(problem, seed, data):
    costs = costs_usd(problem)
    if not costs:
        return
    target_usd = above(min(cost for _, cost in costs)) * data.draw(st.sampled_from([1.0, 1.02, 1.5]))
    rng = np.random.default_rng(seed)
    group = Group(
        models=data.draw(st.sampled_from([None, ("m",), ("n",)])),
        tiers=data.draw(st.sampled_from([None, ("s",), ("t",)])),
        gpus=data.draw(st.sampled_from([None, None, (1,), (2, 4)])),
        count=data.draw(st.sampled_from(["deployments", "gpus"])),
    )
    at = data.draw(st.integers(0, 3 if group.count == "gpus" else 1))
    universe = Universe(problem)
    count = universe.count(group)
    sides = [Restriction(count=count, limit=at + side, above=bool(side)) for side in (0, 1)]
    split = Split(group=group, at=at, below=1, above=2)
    counts = dict(zip(options(universe), count.tolist(), strict=True))
    known = [
        (sum(counts[d] for d in deployed(replicas)), cost)
        for replicas, cost in costs
        if counts.keys() >= deployed(replicas)
    ]
    children = []
    for side in sides:
        duals, top_usd = Climb(problem, rng, (side,)).top()
        inside = [cost for total, cost in known if (total > at) == side.above]
        assert top_usd <= above(min(inside, default=np.inf)), "more than the cheapest plan on this side"
        children.append(Node(duals=duals))
    poor = Climb(problem, rng)
    good = Climb(problem, rng).top()[0]
    for duals in (None, poor.duals(poor.values), poor.duals(50.0 * np.maximum(0.0, poor.values)), good):
        assert not verify(problem, certificate(target_usd, Node(duals=duals, split=split), *children)).accepted


@settings(max_examples=examples(30), **OPTIONS)
@given(problem=problems())
def test_some_optimal_plan_uses_the_universe_only(problem):
    known = set(options(Universe(problem)))
    costs = costs_usd(problem)
    kept = [cost for replicas, cost in costs if known >= deployed(replicas)]
    if costs:
        assert min(kept, default=np.inf) == pytest.approx(min(cost for _, cost in costs), rel=1e-7, abs=1e-7)


def one_configuration(rng, types, max_replicas):
    query_type = QueryType(
        name="q", arrival_per_h=1.0, input_tokens=1.0, output_tokens=1.0, delay_slo_s=1.0, error_slo=1.0, unmet_cap=0.0
    )
    tier = TierSize(
        name="s",
        memory_gb=1.0,
        compute_tflops=1.0,
        compute_efficiency=1.0,
        bandwidth_gb_s=1.0,
        price_usd_per_gpu_h=0.5,
        weight_factor=1.0,
    )

    def column(low, high):
        return rng.choice(np.arange(low, high), (types, 1)) / 10

    return PlanningProblem(
        name="tiny",
        period_h=1.0,
        budget_usd=1e3,
        storage_price_usd_per_gb_h=0.0,
        storage_capacity_gb=1e3,
        max_replicas=max_replicas,
        query_types=tuple(replace(query_type, name=f"q{i}") for i in range(types)),
        models=(ModelSize(name="m", parameters_b=1.0, weights_gb=1.0, kv_mb_per_token=1.0),),
        tiers=(tier,),
        configurations=(Configuration(model="m", tier="s", tensor_parallel=1, pipeline_parallel=1),),
        delay_s=column(0, 30),
        error=column(0, 20),
        load=column(0, 15),
        kv=column(0, 15),
        cap=np.array([rng.choice([0.5, 1.0])]),
        allowed=rng.random((types, 1)) < 0.9,
        capacity_rows=CapacityRows.BATCHING,
    )


@settings(max_examples=150, deadline=None)
@given(seed=seeds, types=st.integers(1, 8), max_replicas=st.integers(1, 4))
def test_an_option_is_given_what_a_linear_program_would_earn(seed, types, max_replicas):
    """With rewards for demand alone: neither less, which would be wrong, nor more, which would be weak."""
    rng = np.random.default_rng(seed)
    problem = one_configuration(rng, types, max_replicas)
    demand = rng.choice(np.arange(-5, 40), types) / 10
    with np.errstate(divide="ignore"):
        share = np.minimum(1.0, np.minimum(1 / problem.delay_s, 1 / problem.error)) * problem.allowed
    best_usd = 0.0
    for replicas in range(1, max_replicas + 1):
        rows, limits = np.vstack([problem.load.T, problem.kv.T]), np.array([problem.cap[0], 1.0]) * replicas
        earned = linprog(-demand, A_ub=rows, b_ub=limits, bounds=[(0.0, float(s)) for s in share[:, 0]], method="highs")
        best_usd = min(best_usd, 0.5 * replicas + earned.fun)
    zeros = (0.0,) * types
    node = Node(duals=Duals(demand=tuple(demand.tolist()), delay=zeros, error=zeros))
    expected_usd = demand.sum() + best_usd
    assert verify(problem, certificate(1e9, node)).root_bound_usd == pytest.approx(expected_usd, rel=1e-8, abs=1e-8)
