"""What a plan is to be robust against, as it is written in a policy's brackets.

box=1.3         delay and error 1.3 times as large, all of them
gamma=1,1.3     of each type's deployments any one 1.3 times as slow and wrong [Bertsimas and Sim]
mean            the mean cost over factors on delay and error and quantiles of the demand
cvar=0.9        the mean cost of the worst tenth of those [conditional value at risk]
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from policies.checking.random_problem import with_demand
from policies.robust.inflation import inflated, worse
from policies.robust.scenarios import DEMAND_LEVELS, Scenario, box, budgeted, demands, free, spread
from simulator.errors import InputError
from simulator.planning.problem import PlanningProblem

SPELLINGS = "box=FACTOR, gamma=GAMMA,FACTOR, mean or cvar=LEVEL"


class Kind(Protocol):
    """A kind of robustness: the scenarios, and how their costs make one number."""

    @property
    def text(self) -> str:
        """As it is written in a policy's brackets."""
        ...

    @property
    def tail(self) -> float:
        """The objective is the mean cost of the dearest `1 - tail` of the probability [CVaR]: at 0 that of all."""
        ...

    @property
    def demand_levels(self) -> tuple[float, ...]:
        """Quantiles of the demand that it heeds."""
        ...

    def scenarios(self, problem: PlanningProblem) -> list[Scenario]:
        """The worlds, the nominal one first."""
        ...

    def candidates(self, problem: PlanningProblem) -> list[PlanningProblem]:
        """Problems whose best fleets may be good ones."""
        ...


@dataclass(frozen=True, slots=True)
class Box:
    """Delay and error of everything are worse by the factor."""

    factor: float
    tail: float = 0.0
    demand_levels: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        return f"box={self.factor:g}"

    def scenarios(self, problem: PlanningProblem) -> list[Scenario]:
        return box(problem, self.factor)

    def candidates(self, problem: PlanningProblem) -> list[PlanningProblem]:
        return [free(inflated(problem, self.factor))]


@dataclass(frozen=True, slots=True)
class Budgeted:
    """Of each type's deployments any gamma are worse by the factor."""

    gamma: float
    factor: float
    tail: float = 0.0
    demand_levels: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        return f"gamma={self.gamma:g},{self.factor:g}"

    def scenarios(self, problem: PlanningProblem) -> list[Scenario]:
        return budgeted(problem, self.gamma, self.factor)

    def candidates(self, problem: PlanningProblem) -> list[PlanningProblem]:
        """With one to four deployments of a type, gamma of them are such a part of all."""
        parts = dict.fromkeys(min(1.0, self.gamma / deployments) for deployments in (1, 2, 4))
        return [free(inflated(problem, 1 + part * (self.factor - 1))) for part in parts]


@dataclass(frozen=True, slots=True)
class Tail:
    """Factors on delay and error and quantiles of the demand: the mean cost, all or of a tail."""

    tail: float
    demand_levels: tuple[float, ...] = DEMAND_LEVELS

    @property
    def text(self) -> str:
        return f"cvar={self.tail:g}" if self.tail else "mean"

    def scenarios(self, problem: PlanningProblem) -> list[Scenario]:
        return spread(problem)

    def candidates(self, problem: PlanningProblem) -> list[PlanningProblem]:
        """Worse by much or little, and by something with the most demand."""
        types = len(problem.query_types)
        most = np.max([demand for demand, _ in demands(problem)], axis=0)
        made = [worse(problem, np.full(types, factor)) for factor in (1.2, 1.5)]
        return [free(each) for each in (*made, worse(with_demand(problem, most), np.full(types, 1.3)))]


def parse_kind(text: str) -> Kind:
    """Make the kind that the text names.

    Raises
    ------
    InputError
        If there is none of that name, or a number is missing or out of range.
    """
    name, given, rest = text.partition("=")
    try:
        numbers = [float(number) for number in rest.split(",")] if given else []
    except ValueError:
        numbers = [math.nan]
    match name, numbers:
        case "box", [factor] if 1 <= factor < math.inf:
            return Box(factor)
        case "gamma", [gamma, factor] if 0 <= gamma < math.inf and 1 <= factor < math.inf:
            return Budgeted(gamma, factor)
        case "mean", []:
            return Tail(0.0)
        case "cvar", [level] if 0 < level < 1:
            return Tail(level)
    raise InputError(
        f"policy 'robust': expected [KIND:POLICY] with {SPELLINGS} (factors from 1 on, GAMMA from 0 on, "
        f"LEVEL between 0 and 1), found {text!r}"
    )
