"""When a plan counts as verified: on the part that was held out, on the draws of the search, and on fresh ones.

A draw is passed if every SLO holds on it. The draws of the search are the same for all plans, so the search could fit
its plans to them; therefore a plan that passes them has to pass as many draws that no plan was tried on. Of these
none may fail: with n = 59 the probability that the plan passes a further draw is then at least 95 %, at 95 % confidence
(the exact binomial bound of zero failures, 0.05 ** (1 / n)).
"""

from dataclasses import dataclass

from scipy.stats import beta

CONFIDENCE = 0.95


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
    held_out_late, fresh_late
        Share of late requests by SLO, in the order of `Trial.counts`: on the part held out, and on each fresh draw.
    """

    held_out: float | None
    search: tuple[float, ...]
    fresh: tuple[float, ...]
    wanted: int
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
        """What the probability to pass a further draw is at least, at `CONFIDENCE`."""
        return share_at_least(sum(strain <= 1 for strain in self.fresh), len(self.fresh))


def share_at_least(passed: int, draws: int) -> float:
    """Lower bound of the probability that a draw is passed, at `CONFIDENCE` (Clopper-Pearson, one-sided)."""
    return float(beta.ppf(1 - CONFIDENCE, passed, draws - passed + 1)) if passed else 0.0
