"""Which engine runs: by name, and the reference engine where the compiled one cannot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulator.engine.base import Engine
from simulator.engine.reference import ReferenceEngine
from simulator.errors import InputError
from simulator.replica.extension import is_compiled, name_of
from simulator.replica.port import Discipline, no_kernel
from simulator.validation import closest

ENGINES = ("compiled", "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenEngine:
    """The engine that runs, under its name in `ENGINES`.

    `warning` says why it is not the one that was asked for, `notice` what the user will wait for.
    """

    name: str
    engine: type[Engine]
    warning: str | None = None
    notice: str | None = None


def choose_engine(
    name: str = "compiled",
    functions: Sequence[Callable[..., object]] = (),
    discipline: Discipline | None = None,
) -> ChosenEngine:
    """Choose an engine by name.

    Parameters
    ----------
    functions
        The user's own functions that the run calls: plain Python ones need the reference engine.
    discipline
        The discipline of the run's replicas, where it is known beforehand.

    Raises
    ------
    InputError
        If there is no engine of this name, or it cannot run the discipline.
    """
    if name not in ENGINES:
        raise InputError(f"there is no engine {name!r}; {closest(name, ENGINES)}")
    if name == "reference":
        return ChosenEngine(name="reference", engine=ReferenceEngine)
    if discipline is not None and discipline.kernel is None:
        raise no_kernel(discipline)
    plain = [name_of(function) for function in functions if not is_compiled(function)]
    if plain:
        why = f"{', '.join(plain)}: plain Python runs in the slower reference engine; numba.njit makes it fast"
        return ChosenEngine(name="reference", engine=ReferenceEngine, warning=why)
    try:
        from simulator.engine.compiled import CompiledEngine
        from simulator.engine.kernel_memory import is_prepared
    except (ImportError, RuntimeError) as error:  # RuntimeError: Numba has no folder that it may cache in
        why = f"the compiled engine cannot be had ({str(error).splitlines()[0]}): the slower reference engine runs"
        return ChosenEngine(name="reference", engine=ReferenceEngine, warning=why)
    notice = None if is_prepared() else "compiling the engine for this machine, once: some 20 s"
    return ChosenEngine(name="compiled", engine=CompiledEngine, notice=notice)
