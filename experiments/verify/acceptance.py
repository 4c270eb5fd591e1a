"""When a plan counts as verified: on the part that was held out, on the draws of the search, and on fresh ones.

A draw is passed if every SLO holds on it. The draws of the search are the same for all plans, so the search could fit
its plans to them; therefore a plan that passes them has to pass draws that no plan was tried on, and none of them may
fail. A plan that holds on less than a share s of all draws passes n of them with a probability below s ** n.

A search that holds many plans against fresh draws will find one that passes by luck. So the k-th plan that comes so far
may pass by luck with a probability of 0.05 / (k (k + 1)) only, which adds up to 0.05 however many there are: it needs
more draws than the ones before. With 72 draws for the first, what is accepted holds on at least 95 % of all draws, at
95 % confidence for the whole search.
"""

import math
from dataclasses import dataclass

CONFIDENCE = 0.95


def luck_of(number: int) -> float:
    """With what probability the plan `number` (from 1 on) of those held against fresh draws may pass by luck."""
    return (1 - CONFIDENCE) / (number * (number + 1))


def draws_wanted(first: int, number: int) -> int:
    """Fresh draws that plan `number` has to pass where the first has to pass `first`."""
    return math.ceil(first * math.log(luck_of(number)) / math.log(luck_of(1)) - 1e-9)


def share_of(draws: int, number: int = 1) -> float:
    """On what share of all draws a plan holds at least that passed so many as plan `number`."""
    return math.pow(luck_of(number), 1 / draws)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Strains of the draws in their order, the last of them above 1 if one was not passed.

    Attributes
    ----------
    held_out
        On the part of the trace that was held out, None if there is none.
    search, fresh
        On the draws of the search, and on draws that were never used before.
    wanted
        How many fresh draws have to be passed.
    number
        Which plan it is of those that the search held against fresh draws, from 1 on.
    held_out_late, fresh_late
        Share of late requests by SLO, in the order of `Trial.counts`: on the part held out, and on each fresh draw.
    """

    held_out: float | None
    search: tuple[float, ...]
    fresh: tuple[float, ...]
    wanted: int
    number: int
    held_out_late: tuple[float, ...] = ()
    fresh_late: tuple[tuple[float, ...], ...] = ()

    @property
    def worst(self) -> float:
        """The largest strain."""
        return max((self.held_out or 0.0, *self.search, *self.fresh))

    @property
    def accepted(self) -> bool:
        return self.worst <= 1 and len(self.fresh) == self.wanted

    @property
    def held_share(self) -> float:
        """On what share of all draws the plan holds at least, at `CONFIDENCE` for the whole search; 0 if refused."""
        return share_of(len(self.fresh), self.number) if self.accepted else 0.0
