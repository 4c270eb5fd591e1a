"""Work done before its results are asked for, in other threads: Arrow and NumPy let others run while they compute."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
PREFETCHED = 3
"""Results that wait at most."""


def prefetch(work: Iterable[Callable[[], T]], threads: int = 2) -> Iterator[T]:
    """Results in their order, some of them computed before they are asked for."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in work:
                waiting.append(pool.submit(item))
                if len(waiting) > PREFETCHED:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
