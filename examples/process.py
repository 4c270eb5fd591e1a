"""Re-plan when requests pile up, not only by the clock: a SimPy process beside the fleet."""

import experiments.api as tokenfleet

replans_at_s = []


def watch(engine):
    """Every ten seconds: if some replica holds more than 40 requests, plan anew, at most once in two minutes."""
    while True:
        yield engine.timeout_s(10)
        longest = max((replica.service.held for replica in engine.fleet.rented()), default=0)
        if longest > 40 and (not replans_at_s or engine.now_s - replans_at_s[-1] >= 120):
            replans_at_s.append(engine.now_s)
            engine.replan()


scenario = tokenfleet.load_scenario("azure-2023")
arriving = tokenfleet.arrivals(scenario, seed=1, duration_s=1800)
run = tokenfleet.replay(scenario, "gh", arriving, interval_s=900, processes=[watch])
print(f"{run.summary['arrived']} requests, {len(run.result.plans)} plans, re-planned out of turn at {replans_at_s} s")
