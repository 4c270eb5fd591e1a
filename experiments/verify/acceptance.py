"""When a plan counts as verified: on the part that was held out, on the draws of the search, and on fresh ones.

A draw is passed if every SLO holds on it. The draws of the search are the same for all plans, so the search could fit
its plans to them; therefore a plan that passes them all is held against draws that no plan was tried on. It is accepted
as soon as so many are done that, with the few it failed, a plan which holds on less than a share s of all draws would
get so far with a small probability: after n draws without a failure, after more with one, and more again with two. A
third failure ends it.

A search that holds many plans against fresh draws will find one that passes by luck. So the k-th plan that comes so far
may pass by luck with a probability of 0.05 / (k (k + 1)) only, a third of it for each number of failures, which adds up
to 0.05 however many there are. With 94 draws for the first, what is accepted holds on at least 95 % of all draws, at
95 % confidence for the whole search.
"""

from dataclasses import dataclass

CONFIDENCE = 0.95
FAILURES = 2  # that an accepted plan may have on fresh draws


def luck_of(number: int) -> float:
    """With what probability the plan `number` (from 1 on) of those held against fresh draws may pass by luck."""
    return (1 - CONFIDENCE) / (number * (number + 1))


def share_of(draws: int, number: int = 1, failures: int = 0) -> float:
    """On what share of all draws a plan holds at least that was accepted as plan `number` after so many draws."""
    from scipy.stats import beta  # here: SciPy takes longer to load than most commands

    level = luck_of(number) / (FAILURES + 1)
    return float(beta.ppf(level, draws - failures, failures + 1)) if draws > failures else 0.0


def draws_wanted(first: int, number: int, failures: int = 0) -> int:
    """Fresh draws after which plan `number` is accepted with so many failures, where the first needs `first` with none.

    The smallest that promise the same share of all draws.
    """
    from scipy.stats import binom  # here: as above

    share, level = share_of(first), luck_of(number) / (FAILURES + 1)
    draws = failures + 1
    while binom.cdf(failures, draws, 1 - share) > level * (1 + 1e-9):
        draws += 1
    return draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """SLO ratios of the draws in their order (`Trial.slo_ratio`): above 1 where a draw was not passed.

    Attributes
    ----------
    held_out
        On the part of the trace that was held out, None if there is none.
    search, fresh
        On the draws of the search, and on draws that were never used before.
    first
        Fresh draws that the first plan has to pass if it fails none (`draws_wanted`).
    number
        Which plan it is of those that the search held against fresh draws, from 1 on.
    held_out_late, fresh_late
        Share of late requests by SLO, in the order of `Trial.counts`: on the part held out, and on each fresh draw.
    """

    held_out: float | None
    search: tuple[float, ...]
    fresh: tuple[float, ...]
    first: int
    number: int
    held_out_late: tuple[float, ...] = ()
    fresh_late: tuple[tuple[float, ...], ...] = ()

    @property
    def worst(self) -> float:
        """The largest SLO ratio."""
        return max((self.held_out or 0.0, *self.search, *self.fresh))

    @property
    def failures(self) -> int:
        """Fresh draws that were not passed."""
        return sum(slo_ratio > 1 for slo_ratio in self.fresh)

    @property
    def accepted(self) -> bool:
        if max((self.held_out or 0.0, *self.search)) > 1 or self.failures > FAILURES:
            return False
        return len(self.fresh) >= draws_wanted(self.first, self.number, self.failures)

    @property
    def held_share(self) -> float:
        """On what share of all draws the plan holds at least, at `CONFIDENCE` for the whole search; 0 if refused."""
        return share_of(len(self.fresh), self.number, self.failures) if self.accepted else 0.0
