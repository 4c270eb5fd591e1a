"""Re-plan when requests pile up, not only by the clock: a SimPy process beside the fleet."""

from experiments.replay.controller import PlanningController
from experiments.replay.run import workload_of, world_of
from experiments.scenario.scenario import load_scenario
from policies.registry import make_policy
from simulator.engine import EngineSettings, choose_engine
from simulator.fleet.reality import Reality
from traces.synthetic.generate import synthesise
from traces.synthetic.profile import load_profile

replans_at_s = []


def watch(engine):
    """Every ten seconds: if some replica holds more than 40 requests, plan anew, at most once in two minutes."""
    while True:
        yield engine.timeout_s(10)
        longest = max((replica.service.held for replica in engine.fleet.rented()), default=0)
        if longest > 40 and (not replans_at_s or engine.now_s - replans_at_s[-1] >= 120):
            replans_at_s.append(engine.now_s)
            engine.replan()


scenario = load_scenario("azure-2023")
trace = synthesise(load_profile("azure-2023"), duration_s=1800, seed=1)
controller = PlanningController(scenario, make_policy("gh"), interval_s=900, stop=scenario.file.stop.rule(), seed=0)
settings = EngineSettings(interval_s=900, horizon_s=1860)
engine = choose_engine().engine(
    workload_of(scenario, trace),
    controller,
    world_of(scenario, Reality()).offer,
    settings,
    Reality(),
    processes=[watch],
)
result = engine.run()
print(f"{result.arrived} requests, {len(result.plans)} plans, re-planned out of turn at {replans_at_s} s")
