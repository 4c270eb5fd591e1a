"""The service disciplines by name: to add one, write its module and add it to the line below."""

from simulator.errors import InputError
from simulator.replica.batching import BATCHING
from simulator.replica.port import Discipline
from simulator.replica.static import STATIC
from simulator.validation import closest

DISCIPLINES: dict[str, Discipline] = {discipline.name: discipline for discipline in (BATCHING, STATIC)}


def discipline_of(name: str) -> Discipline:
    """The discipline of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in DISCIPLINES:
        raise InputError(f"discipline {name!r} is unknown; {closest(name, DISCIPLINES)}")
    return DISCIPLINES[name]
