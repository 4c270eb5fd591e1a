# %% [markdown]
# # Compare policies on a trace
# What would each policy have spent and broken? Run as a script, or cell by cell in an editor that knows `# %%`.
# Name your own trace files on the command line; without any, ten minutes of synthetic arrivals stand in.

# %%
import sys

import pandas as pd

from experiments.options import trace_files
from experiments.replay.run import ReplayOptions, replay_policy, survey
from experiments.scenario.arrivals import stand_in
from experiments.scenario.scenario import load_scenario
from policies.registry import make_policy

scenario = load_scenario("azure-2023")
files = sys.argv[1:]
source = trace_files(files) if files else stand_in(scenario, seed=0, duration_s=600.0)
arriving = survey(scenario, source)
print(f"{arriving.survey.requests:,} requests over {arriving.survey.span_s / 60:.1f} min")

# %%
options = ReplayOptions(interval_s=300.0, seed=0)
runs = [replay_policy(scenario, arriving, make_policy(name), options) for name in ("gh", "agh", "static[agh]")]
table = pd.DataFrame([run.summary for run in runs]).set_index("policy")
print(table[["cost_usd", "gpu_hours", "arrived", "served", "slo_violations", "goodput_share"]].round(3).to_string())

# %% [markdown]
# Latency is a distribution; the tails tell policies apart.

# %%
for run in runs:
    tails = run.summary["ttft_s"]
    print(f"{run.policy}: TTFT p50 {tails['p50']:.2f} s, p95 {tails['p95']:.2f} s, p99 {tails['p99']:.2f} s")
