"""How many examples a property test draws: a few that always are the same, or at night many new ones."""

import os

AT_NIGHT = 4
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "repeat")


def examples(count):
    """So many examples in the check, and `AT_NIGHT` times as many in `make nightly`."""
    return count * AT_NIGHT if PROFILE == "explore" else count
