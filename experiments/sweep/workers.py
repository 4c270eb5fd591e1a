"""Where the runs of a sweep are done: processes here, or a Dask or Ray cluster that is there already.

joblib does the work; it needs the package of the cluster only where one is named.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from joblib import Parallel, cpu_count, delayed, effective_n_jobs, parallel_config

from simulator.errors import InputError

LOT = 4  # runs for each worker, where they are given in lots
CONNECT_S = 10  # a scheduler that has not answered by then does not


class Workers(Protocol):
    """Runs calls and gives their results as they come."""

    def __call__(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Results in any order. Calls are taken from the iterable when a worker is nearly free.

        Raises whatever happens when a worker dies.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Joblib:
    jobs: int | None  # None: as many as the cluster has

    def __call__(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        parallel = Parallel(n_jobs=self.jobs or -1, return_as="generator_unordered", batch_size=1, max_nbytes=None)
        yield from parallel(delayed(function)(*call) for call in calls)


class _JoblibInLots:
    """For backends of joblib that cannot give results as they come (Ray's): lot by lot."""

    def __call__(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        calls = iter(calls)
        size = LOT * effective_n_jobs(-1)
        while lot := list(islice(calls, size)):
            yield from Parallel(n_jobs=-1, batch_size=1)(delayed(function)(*call) for call in lot)


class _Here:
    """In this process, one after the other."""

    def __call__(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for call in calls:
            yield function(*call)


@contextmanager
def workers(cluster: str | None, jobs: int | None) -> Iterator[Workers]:
    """Workers for the length of the block.

    Parameters
    ----------
    cluster
        `dask://HOST:PORT` or `ray://HOST:PORT` of one that runs, None for processes here.
    jobs
        How many processes here: None for one per core, 1 for this process itself.

    Raises
    ------
    InputError
        If the address is none, nothing answers there, or the package of the cluster is not installed.
    """
    with ExitStack() as stack:
        if cluster is None:
            if (jobs or cpu_count()) == 1:
                yield _Here()
                return
            stack.enter_context(parallel_config(backend="loky"))
            yield _Joblib(jobs)
            return
        kind, separator, address = cluster.partition("://")
        if not (separator and address and kind in _CLUSTERS):
            raise InputError(f"--cluster: expected dask://HOST:PORT or ray://HOST:PORT, found {cluster!r}")
        try:
            _CLUSTERS[kind](address, stack)
        except ImportError:
            raise InputError(
                f"--cluster {cluster}: the package {kind!r} is not installed here: pip install 'tokenfleet[{kind}]'"
            ) from None
        except (OSError, ConnectionError, TimeoutError) as error:
            told = str(error) or type(error).__name__
            raise InputError(f"--cluster {cluster}: nothing answers there: {told.splitlines()[0]}") from None
        yield _JoblibInLots() if kind == "ray" else _Joblib(None)


def _dask(address: str, stack: ExitStack) -> None:
    from distributed import Client  # a cluster is asked for

    client: Any = Client
    stack.enter_context(client(f"tcp://{address}", timeout=CONNECT_S, set_as_default=True))
    stack.enter_context(parallel_config(backend="dask", wait_for_workers_timeout=CONNECT_S))


def _ray(address: str, stack: ExitStack) -> None:
    import ray  # a cluster is asked for
    from ray.util.joblib import register_ray

    ray.init(address=f"ray://{address}", logging_level="error")
    stack.callback(ray.shutdown)
    register_ray()
    stack.enter_context(parallel_config(backend="ray"))


_CLUSTERS: dict[str, Callable[[str, ExitStack], None]] = {"dask": _dask, "ray": _ray}
