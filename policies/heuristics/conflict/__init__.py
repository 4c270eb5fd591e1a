"""Why a planning problem has no plan: the smallest set of its limits that cannot be kept together, in its own words.

A *limit* is what an operator could move: the budget, the storage, `max_replicas`, and of each query type its delay SLO,
its error SLO and its unmet cap. What a configuration is (delay, error, capacity, which routes are allowed, one
configuration per model and tier) is no limit. To *lift* one is to take the problem without it.

Feasibility is asked of an oracle, and one answer tells more than it was asked: with fewer limits a problem that has a
plan still has one, and with more limits a problem that has none still has none.
"""
