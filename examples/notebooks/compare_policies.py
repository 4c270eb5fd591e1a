# %% [markdown]
# # Compare policies on a trace
# What would each policy have spent and broken? Run as a script, or cell by cell in an editor that knows `# %%`.
# Name your own trace files on the command line; without any, ten minutes of synthetic arrivals stand in.

# %%
import sys

import experiments.api as tokenfleet

scenario = tokenfleet.load_scenario("azure-2023")
arriving = tokenfleet.arrivals(scenario, sys.argv[1:], duration_s=600.0)
print(f"{arriving.survey.requests:,} requests over {arriving.survey.span_s / 60:.1f} min")

# %%
runs = [tokenfleet.replay(scenario, policy, arriving) for policy in ("gh", "agh", "static[agh]")]
table = tokenfleet.table(runs)
print(table[["cost_usd", "gpu_hours", "arrived", "served", "slo_violations", "violation_share"]].round(3).to_string())

# %% [markdown]
# Latency is a distribution; the tails tell policies apart.

# %%
for run in runs:
    tails = run.summary["ttft_s"]
    print(f"{run.policy}: TTFT p50 {tails['p50']:.2f} s, p95 {tails['p95']:.2f} s, p99 {tails['p99']:.2f} s")
