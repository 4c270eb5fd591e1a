"""`simulator/replica/steady_state.py` against the engine: Poisson arrivals at one deployment, TPOT as the mean over
requests.

The constants that the module calls fitted were fitted on `GRID`, and the forms that it calls assumed were chosen in
sight of it and of `PROMPTS`. `UNSEEN` was put together and run when the module was finished. Tolerances are what is
reached, with some noise.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from experiments.replay.controller import FixedController
from simulator.catalog import load_catalog
from simulator.catalog.configuration import Configuration
from simulator.delay import ConstantDelay
from simulator.engine import EngineSettings, Workload, choose_engine
from simulator.fleet.reality import Reality
from simulator.fleet.world import World
from simulator.moments import TokenMoments
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route
from simulator.replica.batching import BATCHING
from simulator.replica.port import TypeLoad
from simulator.replica.steady_state import steady_state
from simulator.ticks import to_ticks_array

TARGET_S = 0.05  # TPOT at which the linear rows call a replica full
CATALOG = load_catalog()
DELAY = ConstantDelay()

LLAMA_8B = ("llama-3.1-8b", "h100-80-fp16", 1)
LLAMA_70B = ("llama-3.1-70b", "h100-80-fp8", 4)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Model, tier and TP; mean prompt and output tokens of each type, which all have the same rate."""

    hardware: tuple[str, str, int]
    shapes: tuple[tuple[int, int], ...]
    lengths: str
    token_budget: int
    load: float
    replicas: int

    def __str__(self) -> str:
        shapes = "+".join(f"{h}/{f}" for h, f in self.shapes)
        return f"{self.hardware[0]}-{shapes}-{self.lengths}-{self.token_budget}-{self.load}-{self.replicas}"

    @property
    def extreme(self) -> bool:
        """Nearly nothing but prompts of random length, close to the limit of the token budget."""
        return self.load >= 0.9 and self.lengths != "fixed" and min(f for _, f in self.shapes) < 50


CHAT = [
    (LLAMA_8B, ((500, 200),)),
    (LLAMA_70B, ((500, 200),)),
    (("llama-3.2-1b", "a100-80-fp16", 1), ((300, 300),)),
    (("llama-3.2-3b", "l4-fp8", 1), ((300, 300),)),
]
LONG_PROMPTS = [
    (("llama-3.1-8b", "a6000-int8", 2), ((1000, 100),)),
    (("qwen3-32b", "a100-80-fp16", 2), ((1500, 60),)),
]
CODE = [(LLAMA_8B, ((2000, 28),)), (LLAMA_70B, ((2000, 28),))]
MIXED = [(LLAMA_8B, ((500, 200), (2000, 28))), (LLAMA_70B, ((300, 300), (1500, 60)))]


def cases(deployments, lengths, budgets, loads, replicas):
    return [
        Case(hardware=hardware, shapes=shapes, lengths=how, token_budget=budget, load=load, replicas=r)
        for (hardware, shapes), how, budget, load, r in itertools.product(
            deployments, lengths, budgets, loads, replicas
        )
    ]


GRID = cases([*CHAT, *LONG_PROMPTS, *CODE, *MIXED], ["fixed", "log-normal"], [512, 2048], [0.2, 0.5, 0.7, 0.9], [1, 4])
FAST = [case for n, case in enumerate(GRID) if n % 7 == 0]
PROMPTS = cases(
    [(("llama-3.1-8b", "a100-80-fp16", 1), ((3000, 50),)), (LLAMA_8B, ((4000, 20),))],
    ["fixed", "log-normal", "geometric"],
    [512, 4096],
    [0.35, 0.8],
    [1, 2, 8],
)
UNSEEN = cases(
    [
        (("llama-3.1-8b", "a100-80-fp16", 1), ((700, 150),)),
        (("qwen3-32b", "a100-80-fp16", 4), ((400, 250),)),
        (LLAMA_70B, ((2500, 90),)),
        (LLAMA_8B, ((1600, 40),)),
        (("llama-3.1-8b", "a6000-int8", 2), ((300, 150), (1200, 40))),
    ],
    ["fixed", "log-normal", "geometric"],
    [768, 3072],
    [0.3, 0.65, 0.85],
    [1, 3, 6],
)


def lengths(how, inputs, outputs, size, rng):
    """Prompt and output tokens, two of these at least.

    Log-normal: coefficients of variation 1.3 and 0.9, correlated. Geometric: the outputs; prompts uniform to twice the
    mean.
    """
    if how == "fixed":
        return np.full(size, inputs), np.full(size, outputs)
    if how == "geometric":
        return rng.integers(1, 2 * inputs, size), 1 + rng.geometric(1 / (outputs - 1), size)
    first, second = rng.standard_normal((2, size))
    second = 0.5 * first + np.sqrt(0.75) * second
    h = np.clip(np.rint(inputs * np.exp(first - 0.5)), 1, 8 * inputs)
    f = np.clip(np.rint(outputs * np.exp(0.8 * second - 0.32)), 2, 8 * outputs)
    return h.astype(np.int64), f.astype(np.int64)


def errors(case, requests, seed=0):
    """Error of the TPOT of each type, and of the share of time for work. The moments are those of the sample."""
    rng = np.random.default_rng(seed)
    model, tier, n = case.hardware
    types = len(case.shapes)
    kind = rng.integers(0, types, requests).astype(np.int32)
    h, f = np.zeros((2, requests), dtype=np.int64)
    for k, (inputs, outputs) in enumerate(case.shapes):
        of_type = kind == k
        h[of_type], f[of_type] = lengths(case.lengths, inputs, outputs, of_type.sum(), rng)
    step = DELAY.step_cost(CATALOG.models[model], CATALOG.tiers[tier], n, 1)
    decode_s = step.decode_s_per_sequence * f + step.context_s_per_token * (h * f + f * f / 2)
    work_s = step.prefill_s_per_token * h + decode_s
    by_budget_s = work_s.mean() + step.base_s * (h + f).mean() / case.token_budget
    rate_per_s = case.load * case.replicas / max(work_s.mean() / (1 - step.base_s / TARGET_S), by_budget_s)
    arrival_s = np.cumsum(rng.exponential(1.0, requests))
    arrival_s *= requests / rate_per_s / arrival_s[-1]

    names = tuple(f"q{k}" for k in range(types))
    configuration = Configuration(model=model, tier=tier, tensor_parallel=n, pipeline_parallel=1)
    plan = Plan(
        problem="one",
        policy="by hand",
        status=PlanStatus.FEASIBLE,
        cost_usd=0.0,
        bound_usd=None,
        seconds=None,
        deployments=(Deployment(configuration=configuration, replicas=case.replicas),),
        routing=tuple(Route(query_type=name, model=model, tier=tier, share=1.0) for name in names),
        unmet=(),
    )
    world = World(
        catalog=CATALOG,
        delay_model=DELAY,
        discipline=BATCHING,
        reality=Reality(),
        provisioning_s=0.0,
        load_gb_per_s=1.0,
        token_budget=case.token_budget,
    )
    workload = Workload(
        types=names,
        arrival_tick=to_ticks_array(arrival_s),
        query_type=kind,
        input_tokens=h,
        output_tokens=f,
    )
    settings = EngineSettings(interval_s=1e7, horizon_s=arrival_s[-1] + 1, grace_s=3600.0)
    result = choose_engine().engine(workload, FixedController(plan), world.offer, settings, Reality()).run().requests
    assert result.served.all()
    assert not result.preemptions.any()
    settled = np.zeros(requests, dtype=bool)
    settled[requests // 20 : requests * 19 // 20] = True
    simulated_s = np.array([result.tpot_s[settled & (kind == k)].mean() for k in range(types)])

    def load_of(k):
        of_type = kind == k
        x, y = h[of_type].astype(float), f[of_type].astype(float)
        return TypeLoad(
            rate_per_s=rate_per_s * of_type.mean(),
            tokens=TokenMoments.means(x.mean(), y.mean(), (x * y).mean(), (y * y).mean(), (x * x).mean()),
            inverse_output=(1 / (y - 1)).mean(),
        )

    loads = [load_of(k) for k in range(types)]
    expected = steady_state(step, token_budget=case.token_budget, replicas=case.replicas, loads=loads)
    done_s = work_s[settled].sum() / case.replicas / np.ptp(arrival_s[settled])
    print(case, "TPOT", expected.tpot_s / simulated_s - 1, "implied", expected.step_s / simulated_s - 1)
    return expected.tpot_s / simulated_s - 1, expected.work_share / done_s - 1


@pytest.mark.parametrize("case", FAST, ids=str)
def test_tpot_and_load_agree(case):
    tpot, work = errors(case, 60_000)
    assert np.abs(tpot).max() <= (0.11 if case.extreme else 0.07)
    assert abs(work) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("case", GRID, ids=str)
def test_tpot_and_load_agree_closely(case):
    """Within 5 %, 6 % at a load of 0.9; there 9.5 % where short answers follow prompts of random length."""
    tpot, work = errors(case, 400_000, seed=1)
    assert np.abs(tpot).max() <= (0.095 if case.extreme else 0.06 if case.load >= 0.9 else 0.05)
    assert abs(work) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("case", UNSEEN, ids=str)
def test_tpot_and_load_agree_where_nothing_was_fitted(case):
    """Within 9 %; 5 % in 96 of 100 cases."""
    tpot, work = errors(case, 200_000, seed=5)
    assert np.abs(tpot).max() <= 0.09
    assert abs(work) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("case", PROMPTS, ids=str)
def test_where_it_falls_short(case):
    """Sixty prompt tokens and more for one of output: what eight replicas do to each other is not described well."""
    tpot, work = errors(case, 200_000, seed=2)
    assert np.abs(tpot).max() <= (0.17 if case.replicas == 8 else 0.11)
    assert abs(work) <= 0.03
