# %% [markdown]
# # Your own cluster's prices
# What does the plan look like when H100 hours cost what *you* pay? Prices, tiers, SLOs and queries stand in a scenario
# file; here one is made of the shipped one.

# %%
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.replay.controller import nominal_problem
from experiments.scenario.scenario import load_scenario
from policies.registry import make_policy
from simulator.planning.plan import describe
from simulator.planning.policy import StoppingRule

shipped = (resources.files("experiments") / "scenarios" / "azure-2023.toml").read_text("utf-8")
PRICES = {"h100-80-fp8": 4.9, "h100-80-fp16": 4.9, "l40s-fp8": 0.6, "l40s-fp16": 0.6}  # USD per GPU and hour
stated = ", ".join(f'"{tier}" = {price}' for tier, price in PRICES.items())


def cheapest(name, text):
    """The exact plan of an hour under these prices."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mine.toml"
        path.write_text(text)
        problem = nominal_problem(load_scenario(str(path)))
    plan = make_policy("exact").plan(problem, incumbent=None, stop=StoppingRule(relative_gap=0.01), seed=0)
    print(f"{name}: {plan.cost_usd:.2f} USD an hour")
    for deployment in plan.deployments:
        print(f"  {deployment.replicas} x {describe(deployment.configuration)}")


# %%
cheapest("prices of the catalog", shipped)
cheapest("your prices", shipped.replace("[catalog]", f"[catalog]\nprice_usd_per_gpu_h = {{ {stated} }}"))
