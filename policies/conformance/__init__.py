"""What every policy owes to its callers, as named checks: the suite behind `tokenfleet vet` and of the tests.

A check plans a few problems and says in one sentence what held, or what was expected and what happened instead. Nothing
is taken on trust: plans go through the checker, bounds and optima are held against certified optima, and whatever a
policy raises besides what the port allows is its defect. Problems are made anew for each check, so that a policy that
changes one spoils no other check.
"""
