# %% [markdown]
# # Your own cluster's prices
# What does the plan look like when H100 hours cost what *you* pay? Prices, tiers, SLOs and queries stand in a scenario
# file; any field of it can be changed from Python too, and is checked as the file would be.

# %%
import experiments.api as tokenfleet

PRICES = {"h100-80-fp8": 4.9, "h100-80-fp16": 4.9, "l40s-fp8": 0.6, "l40s-fp16": 0.6}  # USD per GPU and hour


def cheapest(name, scenario):
    """The exact plan of an hour under these prices."""
    plan = tokenfleet.plan(scenario, "exact", stop=tokenfleet.StoppingRule(relative_gap=0.01)).plan
    print(f"{name}: {plan.cost_usd:.2f} USD an hour")
    for deployment in plan.deployments:
        print(f"  {deployment.replicas} x {tokenfleet.describe(deployment.configuration)}")


# %%
shipped = tokenfleet.load_scenario("azure-2023")
cheapest("prices of the catalog", shipped)
cheapest("your prices", tokenfleet.with_changes(shipped, {"catalog.price_usd_per_gpu_h": PRICES}))
