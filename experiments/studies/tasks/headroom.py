"""The cap that is needed: the largest load, over its limit, at which the percentiles of a deployment hold.

One deployment gets all arrivals; their rate is searched on a grid of 3 %, every rate simulated on a few draws. The
result is a rate that holds while those up to 15 % above it do not; whether a fleet holds is not monotone in its load,
since at every rate the draws are others. Beside it stand the guesses of theory at that rate.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experiments.options import trace_files
from experiments.scenario.scenario import Scenario
from experiments.scenario.slo import SloCount
from experiments.studies.tasks.setting import scenario_of
from experiments.sweep.outcome import Outcome
from experiments.verify.draws import Draw, concatenated, draw_of
from experiments.verify.guess import Guess, index_of_dispersion, peak
from experiments.verify.sample import Sample
from experiments.verify.trial import Bench
from simulator.catalog.configuration import Configuration
from simulator.errors import InputError
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route
from simulator.rng import stream
from simulator.workload import Trace
from traces.synthetic.generate import synthesise
from traces.synthetic.profile import load_profile
from traces.synthetic.resample import blocks_of, resample

STEP = 1.03
ABOVE = 5  # steps above the result that are seen not to hold: 16 %
LEAST, MOST = -155, 12  # steps from the limit: loads from 1 to 143 % of it
BLOCK_S = 60.0
WINDOW_S = 10.0  # of the index of dispersion
SEED_SPACE = 1000  # between seeds: more than there are draws
CONVERSATION = "conv"  # source whose mean lengths the Poisson arrivals have

Make = Callable[[float, int], Trace]  # from a rate per second and a seed


def headroom(parameters: Mapping[str, Any]) -> Outcome:
    """One size of a deployment under one kind of arrivals; one row.

    Parameters
    ----------
    parameters
        scenario, deployment (model, tier, tensor parallel), replicas, arrivals (`{"poisson": true}`,
        `{"source": NAME}` of the scenario's profile or `{"trace": FILE}`), level (of the percentiles), duration_s,
        draws, seed; optionally changes, about.
    """
    scenario = scenario_of(parameters)
    configuration = configuration_of(scenario, *parameters["deployment"])
    with arrivals(scenario, parameters["arrivals"], float(parameters["duration_s"])) as make:
        site = Site(
            scenario=scenario,
            configuration=configuration,
            replicas=int(parameters["replicas"]),
            make=make,
            level=float(parameters["level"]),
            draws=int(parameters["draws"]),
            seed=SEED_SPACE * int(parameters["seed"]),
        )
        found = largest(lambda step: site.at(step).holds, 0, LEAST, MOST)
        row: dict[str, Any] = {"feasible": found is not None}
        if found is None:
            row["status"] = f"at {STEP**LEAST:.0%} of the limit: {site.at(LEAST).binding}"
        else:
            row |= {"status": site.at(found + 1).binding if found < MOST else "nothing", **site.row(found)}
    about = {
        "problem": scenario.name,
        "seed": int(parameters["seed"]),
        "way": "simulated",
        "replicas": site.replicas,
        "gpus": site.replicas * configuration.gpus,
        **parameters.get("about", {}),
    }
    return Outcome(rows=[{**about, **row}])


def configuration_of(scenario: Scenario, model: str, tier: str, tensor_parallel: int) -> Configuration:
    """The one that is named.

    Raises
    ------
    InputError
        If the scenario has none like it.
    """
    for c in scenario.configurations:
        if (c.model, c.tier, c.tensor_parallel, c.pipeline_parallel) == (model, tier, tensor_parallel, 1):
            return c
    raise InputError(
        f"{model} on {tier} TP{tensor_parallel} is no configuration of scenario {scenario.name}: its models are "
        f"{', '.join(scenario.catalog.models)}, its tiers {', '.join(scenario.catalog.tiers)}"
    )


# -- arrivals ---------------------------------------------------------------------------------------------------------


@contextmanager
def arrivals(scenario: Scenario, asked: Mapping[str, Any], duration_s: float) -> Iterator[Make]:
    """A way to draw arrivals at any rate.

    A source of a profile is drawn at that rate, its bursts relative to it as they are. A trace is thinned, or laid over
    itself (block bootstraps, each of its own draw): more arrivals are then those of more users who know nothing of one
    another.

    Raises
    ------
    InputError
        If there is no such source, or the trace is too short.
    """
    if "trace" in asked:
        with blocks_of(trace_files([asked["trace"]]), BLOCK_S) as blocks:
            mean = blocks.requests / (len(blocks) * blocks.block_s)

            def layered(rate_per_s: float, seed: int) -> Trace:
                chunks = resample(blocks, duration_s=duration_s, seed=seed, rate_factor=rate_per_s / mean)
                return concatenated(list(chunks))

            yield layered
    elif "source" in asked:
        profile = load_profile(scenario.file.synthetic.profile)
        named = [source for source in profile.sources if source.name == asked["source"]]
        if not named:
            raise InputError(f"profile {profile.name} has no source {asked['source']!r}")
        alone = replace(profile, sources=tuple(named))

        def drawn(rate_per_s: float, seed: int) -> Trace:
            return synthesise(alone, duration_s=duration_s, seed=seed, rate_factor=rate_per_s / named[0].rate_per_s)

        yield drawn
    else:
        yield lambda rate_per_s, seed: _poisson(scenario, rate_per_s, duration_s, seed)


def _poisson(scenario: Scenario, rate_per_s: float, duration_s: float, seed: int) -> Trace:
    """All requests as long as those of a conversation are on average, by what the scenario expects."""
    rules = [rule for rule in scenario.types if rule.source == CONVERSATION] or list(scenario.types)
    weight = np.array([rule.expected.arrival_per_h for rule in rules])
    inputs, outputs = (
        max(1, round(float(np.average([getattr(rule.expected, name) for rule in rules], weights=weight))))
        for name in ("input_tokens", "output_tokens")
    )
    draw = stream(seed, "headroom-poisson")
    count = int(draw.poisson(rate_per_s * duration_s))
    return Trace(
        sources=(rules[0].source or rules[0].name,),
        arrival_s=np.sort(draw.uniform(0.0, duration_s, count)),
        source=np.zeros(count, dtype=np.int32),
        input_tokens=np.full(count, inputs, dtype=np.int32),
        output_tokens=np.full(count, outputs, dtype=np.int32),
    )


# -- one deployment ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What the draws at one rate showed: requests beyond each SLO, all draws together.

    `whole` is False where the draws were stopped because it was clear that the percentiles do not hold.
    """

    counts: tuple[tuple[str, SloCount], ...]
    whole: bool

    @property
    def holds(self) -> bool:
        return self.whole and all(count.held for _, count in self.counts)

    @property
    def binding(self) -> str:
        """The SLO that is with the largest share late for what may be, with its query type."""
        name, count = max(self.counts, key=lambda item: item[1].slo_ratio)
        return f"{name} {count.slo.label}"


class Site:
    """A deployment of so many replicas with all arrivals; load is counted in steps of `STEP` from its limit."""

    def __init__(
        self,
        *,
        scenario: Scenario,
        configuration: Configuration,
        replicas: int,
        make: Make,
        level: float,
        draws: int,
        seed: int,
    ) -> None:
        self.replicas = replicas
        self._scenario, self._configuration, self._make = scenario, configuration, make
        self._level, self._draws, self._seed = level, draws, seed
        self._step = scenario.step_cost(configuration.deployment_key)
        tpot_s = configuration.tpot_target_s or max(scenario.tpot_targets_s)
        self.limit = float(self._step.share_for_work(tpot_s))
        if self.limit <= 0:
            raise InputError(
                f"{configuration.model} on {configuration.tier}: a step takes {self._step.base_s:.3g} s by itself, a "
                f"token may take {tpot_s:g} s"
            )
        slos = [rule.slos(level) for rule in scenario.types]
        self._bench = Bench(scenario, slos, guard=1.0)
        self._plan = _everything(scenario, configuration, replicas)
        self._known: dict[int, Point] = {}
        pilot = Sample.of(self._draw(1.0, 0))
        self._work_s = float(np.concatenate([of_type.work_s(self._step) for of_type in pilot.types]).mean())

    def at(self, step: int) -> Point:
        """What the draws show at a load."""
        if step not in self._known:
            self._known[step] = self._point(self.rate_per_s(step))
        return self._known[step]

    def rate_per_s(self, step: int) -> float:
        return STEP**step * self.limit * self.replicas / self._work_s

    def row(self, step: int) -> dict[str, Any]:
        """The load as it arrived, and what theory would have guessed there: means over the draws."""
        draws = [self._draw(self.rate_per_s(step), number) for number in range(self._draws)]
        samples = [Sample.of(draw) for draw in draws]
        return {
            "rate_per_s": _mean([len(d.workload.arrival_tick) / d.horizon_s for d in draws]),
            "dispersion": _mean([_dispersion(sample) for sample in samples]),
            "cap": _mean([self._load(sample) / self.limit for sample in samples]),
            "cap_staffing": _mean([self._staffing(sample) for sample in samples]),
            "cap_sequence": _mean([self._sequence(sample) for sample in samples]),
        }

    def _draw(self, rate_per_s: float, number: int) -> Draw:
        seed = self._seed + number
        return draw_of(self._scenario, self._make(rate_per_s, seed), f"draw {number}", seed)

    def _point(self, rate_per_s: float) -> Point:
        total: list[tuple[str, SloCount]] = []
        for number in range(self._draws):
            counts = self._bench.trial(self._plan, self._draw(rate_per_s, number)).counts
            named = [(self._scenario.types[i].name, count) for i, count in counts]
            total = [_together(*pair) for pair in zip(total, named, strict=True)] if total else named
            # if it has used up what all draws together may have: twice that, as they are not of one size
            if any(count.slo_ratio * (number + 1) > 2 * self._draws for _, count in total):
                return Point(counts=tuple(total), whole=False)
        return Point(counts=tuple(total), whole=True)

    def _load(self, sample: Sample) -> float:
        """Of one replica [seconds of work per second]."""
        return (
            sum(float(of_type.work_s(self._step).sum()) for of_type in sample.types) / sample.horizon_s / self.replicas
        )

    def _staffing(self, sample: Sample) -> float:
        share = np.array([float(len(of_type) > 0) for of_type in sample.types])
        return peak(Guess.STAFFING, self._scenario, sample, self._configuration, share, self._level).cap

    def _sequence(self, sample: Sample) -> float:
        """Each type's load counts by its own peak, as in the loop of verified plans."""
        load, needed = 0.0, 0.0
        for of_type, alone in zip(sample.types, np.eye(len(sample.types)), strict=True):
            if len(of_type):
                cap = peak(Guess.SEQUENCE, self._scenario, sample, self._configuration, alone, self._level).cap
                work_s = float(of_type.work_s(self._step).sum())
                load, needed = load + work_s, needed + work_s / cap
        return load / needed


def largest(holds: Callable[[int], bool], start: int, least: int, most: int) -> int | None:
    """A step that holds while the `ABOVE` steps above it do not; None if none does that is found.

    Found by doubling from `start` and bisection, and from there upwards as long as one of the next holds.
    """
    low, high = start, start
    if holds(start):
        width = 1
        while holds(high := min(low + width, most)):
            low = high
            if low == most:
                return most
            width *= 2
    else:
        width = 8
        while not holds(low := max(high - width, least)):
            high = low
            if high == least:
                return None
            width *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    while True:
        above = [step for step in range(low + 1, min(low + ABOVE, most) + 1) if holds(step)]
        if not above:
            return low
        low = above[-1]


def _everything(scenario: Scenario, configuration: Configuration, replicas: int) -> Plan:
    """All queries to one deployment, whatever its errors are."""
    return Plan(
        problem=scenario.name,
        policy="headroom",
        status=PlanStatus.FEASIBLE,
        cost_usd=0.0,
        bound_usd=None,
        seconds=None,
        deployments=(Deployment(configuration=configuration, replicas=replicas),),
        routing=tuple(
            Route(query_type=rule.name, model=configuration.model, tier=configuration.tier, share=1.0)
            for rule in scenario.types
        ),
        unmet=(),
    )


def _together(before: tuple[str, SloCount], after: tuple[str, SloCount]) -> tuple[str, SloCount]:
    (name, old), (_, new) = before, after
    return name, replace(new, requests=old.requests + new.requests, over=old.over + new.over)


def _dispersion(sample: Sample) -> float:
    arrival_s = np.sort(np.concatenate([of_type.arrival_s for of_type in sample.types]))
    return index_of_dispersion(arrival_s, sample.horizon_s, WINDOW_S)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
