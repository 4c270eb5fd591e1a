"""Scenarios: a scenario file with the catalog and the configurations that follow from it, and the requests' types."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.scenario.schema import QueryTypeRule, ScenarioFile
from simulator.catalog import Catalog, candidate_configurations, load_catalog
from simulator.catalog.configuration import Configuration, DeploymentKey
from simulator.delay import DELAY_MODELS, DelayModel, SlowedDelay, StepCost
from simulator.errors import InputError
from simulator.planning.files import read_bytes
from simulator.planning.plan import describe
from simulator.planning.problem import CapacityRows
from simulator.replica.port import Discipline, NominalReplica
from simulator.replica.registry import discipline_of
from simulator.validation import closest, refuse_beyond_reason, refuse_other_types, validated
from simulator.workload import Trace
from traces.forecast.registry import refuse_unknown

MAX_LISTED = 5  # requests shown when no rule matches them


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a scenario may rent, and of each model that it cannot plan with a sentence that says why."""

    catalog: Catalog
    configurations: tuple[Configuration, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """What a scenario file states, and how much slower its world is; all else follows from that.

    Only `resolve` makes scenarios, so that each is as sound as one that was read from a file.

    Attributes
    ----------
    file
        Every field of the file, with the changes that were asked for.
    folder
        Where relative paths of the file count from.
    source
        What messages call the file.
    delay_factor
        How many times as long every step takes as the delay model says, for planner and engine alike.
    """

    file: ScenarioFile
    folder: Path
    source: str
    delay_factor: float

    @cached_property
    def choice(self) -> Choice:
        """The models and tiers that the file chooses, without the models that cannot be planned with."""
        return _choice_of(self.file, self.folder)

    @cached_property
    def delay_model(self) -> DelayModel:
        """The delay model that the file names, in the scenario's slower world."""
        model = DELAY_MODELS[self.file.delay_model](self.catalog)
        return model if self.delay_factor == 1 else SlowedDelay(model, self.delay_factor)

    @property
    def catalog(self) -> Catalog:
        """Models and tiers that can be planned with."""
        return self.choice.catalog

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """What can be rented, by model, tier and number of GPUs."""
        return self.choice.configurations

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def types(self) -> tuple[QueryTypeRule, ...]:
        return self.file.query_types

    @property
    def tpot_targets_s(self) -> tuple[float, ...]:
        """Operating points of the `batching` rows: those stated, else the distinct TPOT limits."""
        stated = self.file.tpot_targets_s
        return (
            stated if stated else tuple(sorted({t.planned_tpot_s for t in self.types if t.planned_tpot_s is not None}))
        )

    def step_cost(self, key: DeploymentKey) -> StepCost:
        """Of one replica, at nominal."""
        model, tier = self.catalog.models[key.model], self.catalog.tiers[key.tier]
        return self.delay_model.step_cost(model, tier, key.tensor_parallel, key.pipeline_parallel)

    @property
    def discipline(self) -> Discipline:
        """How replicas serve."""
        return discipline_of(self.file.discipline)

    @property
    def has_queues(self) -> bool:
        """Whether replicas batch and plans count with it: only then can plans be verified by what queues do."""
        return self.file.capacity is CapacityRows.BATCHING is self.discipline.capacity_rows

    def nominal_replica(self, key: DeploymentKey) -> NominalReplica:
        """One replica as planners see it."""
        return NominalReplica.of(
            self.catalog,
            self.delay_model,
            key,
            memory_utilisation=self.file.catalog.memory_utilisation,
            token_budget=self.file.engine.token_budget,
            slots=self.file.engine.slots,
        )

    def error_of(self, configurations: tuple[Configuration, ...]) -> npt.NDArray[np.float64]:
        """Shape (types, configurations): error of the model x factor of the precision x difficulty of the type."""
        base = np.array(
            [
                (self.catalog.models[c.model].error or 0.0) * self.catalog.tiers[c.tier].error_factor
                for c in configurations
            ]
        )
        difficulty = np.array([rule.difficulty for rule in self.types], dtype=np.float64)
        return np.outer(difficulty, base)


def resolve(stated: Mapping[str, Any], *, source: str, folder: Path = Path(), delay_factor: float = 1.0) -> Scenario:
    """The scenario of what a file states: every scenario, changed or not, comes from here.

    Parameters
    ----------
    stated
        The content of the file, as TOML has it.
    source
        What messages call the file.
    folder
        Where relative paths of the file count from.
    delay_factor
        How many times as long every step takes as the delay model says.

    Raises
    ------
    InputError
        Naming the file and every field that is missing, unknown or out of range; or an unknown model or tier; or a
        budget that rents nothing.
    """
    file = validated(ScenarioFile, stated, source)
    refuse_beyond_reason(stated, source)
    if not 0 < delay_factor < math.inf:
        raise InputError(f"{source}: the factor on all delays has to be a number above zero, found {delay_factor:g}")
    scenario = Scenario(file=file, folder=folder, source=source, delay_factor=delay_factor)
    try:
        _refuse_tiny_budget(file.limits.budget_usd_per_h, scenario.choice)
    except InputError as error:
        raise InputError(f"{source}: {problem}" for problem in error.problems) from None
    return scenario


def _choice_of(file: ScenarioFile, folder: Path) -> Choice:
    """What can be planned with: a model that cannot be is skipped, and only all of them are an error."""
    stated, skipped = file.catalog, []
    try:
        catalog = load_catalog(None if stated.file is None else folder / stated.file).select(
            models=stated.models, tiers=stated.tiers, price_overrides=stated.price_usd_per_gpu_h
        )
        skipped = [
            f"{model.name}: no error is known, and none can be planned with; state one in a file"
            for model in catalog.models.values()
            if model.error is None
        ]
        with_error = {name: model for name, model in catalog.models.items() if model.error is not None}
        candidates = candidate_configurations(
            replace(catalog, models=with_error),
            stated.tensor_parallel,
            stated.pipeline_parallel,
            stated.memory_utilisation,
        )
    except InputError as error:
        raise InputError(f"catalog: {problem}" for problem in (*skipped, *error.problems)) from None
    return Choice(
        catalog=catalog.select(models=dict.fromkeys(c.model for c in candidates.configurations)),
        configurations=candidates.configurations,
        skipped=(*skipped, *candidates.skipped),
    )


def _refuse_tiny_budget(budget_usd_per_h: float, choice: Choice) -> None:
    """A budget that rents nothing would reject every request: surely a mistake."""
    tiers = choice.catalog.tiers
    price, cheapest = min(
        ((c.gpus * tiers[c.tier].price_usd_per_gpu_h, c) for c in choice.configurations), key=lambda item: item[0]
    )
    if budget_usd_per_h < price:
        raise InputError(
            f"limits.budget_usd_per_h: {budget_usd_per_h:g} USD/h is too small: the cheapest replica, "
            f"{describe(cheapest)}, rents for {price:g} USD/h"
        )


# -- scenarios by name or path ----------------------------------------------------------------------------------------


def shipped_scenarios() -> dict[str, str]:
    """Names of the shipped scenarios with their descriptions."""
    folder = resources.files("experiments") / "scenarios"
    files = sorted(item.name for item in folder.iterdir() if item.name.endswith(".toml"))
    return {
        name.removesuffix(".toml"): str(tomllib.loads((folder / name).read_text("utf-8")).get("description", ""))
        for name in files
    }


def load_scenario(name_or_path: str) -> Scenario:
    """Load a shipped scenario by name, or a user's by path (anything with a slash or ending in `.toml`).

    Raises
    ------
    InputError
        Naming the file and every field that is missing, unknown or out of range; or an unknown scenario, model or tier.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        return _parsed(read_bytes(path), str(path), path.parent)
    known = shipped_scenarios()
    if name_or_path not in known:
        raise InputError(
            f"unknown scenario {name_or_path!r}; {closest(name_or_path, known)}; or a path to a .toml file"
        )
    resource = resources.files("experiments") / "scenarios" / f"{name_or_path}.toml"
    return _parsed(resource.read_bytes(), f"scenario {name_or_path}", Path())


def _parsed(data: bytes, source: str, folder: Path) -> Scenario:
    try:
        stated = tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{source}: expected TOML: {error}") from None
    refuse_other_types(ScenarioFile, stated, source)
    return resolve(stated, source=source, folder=folder)


# -- changed scenarios ------------------------------------------------------------------------------------------------


def with_changes(scenario: Scenario, changes: Mapping[str, Any], *, delay_factor: float = 1.0) -> Scenario:
    """The scenario with other values of some fields, and slower by another factor.

    Parameters
    ----------
    changes
        New values by dotted name, as in `{"limits.cap": 0.7}`.
    delay_factor
        Comes on top of the scenario's own.

    Raises
    ------
    InputError
        As for a file that states these values.
    """
    if not changes and delay_factor == 1:
        return scenario
    stated = scenario.file.model_dump()
    for name, value in changes.items():
        *groups, field = name.split(".")
        place = stated
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise InputError(f"{scenario.source}: {name}: {group} has no fields of its own")
        place[field] = value
    factor = scenario.delay_factor * delay_factor
    return resolve(stated, source=scenario.source, folder=scenario.folder, delay_factor=factor)


_FORECAST = re.compile(r"(?P<method>[^:]+)(:p(?P<percent>\d{1,2}(\.\d+)?))?")


def with_forecast(scenario: Scenario, text: str) -> Scenario:
    """The scenario with another forecaster: `NAME` plans for its mean, `NAME:p90` for that quantile.

    Raises
    ------
    InputError
        If there is no such forecaster, or the quantile is none.
    """
    match = _FORECAST.fullmatch(text.strip())
    percent = float(match["percent"]) if match and match["percent"] else None
    if match is None or percent == 0:
        raise InputError(f"--forecast: expected NAME or NAME:p90, a quantile between p0 and p100; found {text!r}")
    try:
        refuse_unknown(match["method"])
    except InputError as error:
        raise InputError(f"--forecast: {error}") from None
    quantile = None if percent is None else percent / 100
    return with_changes(scenario, {"forecast.method": match["method"], "forecast.quantile": quantile})


def with_delay_model(scenario: Scenario, name: str) -> Scenario:
    """The scenario with another delay model, for planner and engine alike.

    Raises
    ------
    InputError
        If there is no such delay model.
    """
    if name not in DELAY_MODELS:
        raise InputError(f"--delay-model: {name!r} is unknown; {closest(name, DELAY_MODELS)}")
    return with_changes(scenario, {"delay_model": name})


def slowed(scenario: Scenario, factor: float) -> Scenario:
    """The scenario in a world in which every step takes `factor` times as long, for planner and engine alike."""
    return with_changes(scenario, {}, delay_factor=factor)


# -- query types of requests ------------------------------------------------------------------------------------------


def classify(scenario: Scenario, trace: Trace) -> npt.NDArray[np.int32]:
    """Give each request the first query type whose rule matches, -1 if there is none: see `Unmatched`."""
    result = np.full(len(trace), -1, dtype=np.int32)
    for index, rule in enumerate(scenario.types):
        matches = rule.input_tokens.contains(trace.input_tokens) & rule.output_tokens.contains(trace.output_tokens)
        if rule.source is not None:
            matches &= trace.source == (trace.sources.index(rule.source) if rule.source in trace.sources else -1)
        result[matches & (result < 0)] = index
    return result


class Unmatched:
    """Counts the requests that match no query type, chunk by chunk."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._seen = 0
        self._missed = 0
        self._examples: list[str] = []
        self._sources: dict[str, None] = {}  # of the missed requests

    def look_at(self, trace: Trace) -> None:
        """Look at the next chunk of a trace."""
        missed = np.flatnonzero(classify(self._scenario, trace) < 0)
        for i in missed[: MAX_LISTED - len(self._examples)].tolist():
            self._examples.append(
                f"  request {self._seen + i}: source {trace.sources[trace.source[i]]!r}, {trace.input_tokens[i]} input "
                f"and {trace.output_tokens[i]} output tokens"
            )
        self._sources |= dict.fromkeys(trace.sources[k] for k in np.unique(trace.source[missed]).tolist())
        self._missed += len(missed)
        self._seen += len(trace)

    def refuse(self) -> None:
        """Refuse a trace that has such requests.

        Raises
        ------
        InputError
            Saying how many there are, and what the first of them look like.
        """
        if not self._missed:
            return
        more = [f"  and {self._missed - MAX_LISTED} more"] if self._missed > MAX_LISTED else []
        head = f"scenario {self._scenario.name}: no query type matches {self._missed} of {self._seen} requests:"
        raise InputError("\n".join([head, *self._examples, *more, *self._how_to_map()]))

    def _how_to_map(self) -> list[str]:
        """Where the scenario knows none of the sources: which it knows, and how a request gets one."""
        wanted = list(dict.fromkeys(rule.source for rule in self._scenario.types if rule.source is not None))
        unknown = [name for name in self._sources if name not in wanted]
        if not wanted or not unknown:
            return []
        listed = ", ".join(repr(name) for name in unknown[:MAX_LISTED]) + ", ..." * (len(unknown) > MAX_LISTED)
        return [
            f"the query types are of the sources {', '.join(map(repr, wanted))}; the trace has {listed}. "
            f"{wanted[0]}=FILE gives all requests of a file the source {wanted[0]!r}, --map source=COLUMN takes it "
            "from a column, and a query type without a source takes any"
        ]
