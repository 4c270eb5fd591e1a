"""Successive chunks of one trace: put together, or cut anew."""

from collections.abc import Iterable, Iterator

import numpy as np

from simulator.workload import Trace

CHUNK_ROWS = 2**18
"""Requests of a row group that `rechunk` makes."""


def rechunk(chunks: Iterable[Trace], rows: int = CHUNK_ROWS) -> Iterator[Trace]:
    """The same requests in chunks of `rows`, the last one shorter: row groups do not depend on how they were made."""
    waiting: list[Trace] = []
    held = 0
    for chunk in chunks:
        waiting.append(chunk)
        held += len(chunk)
        if held >= rows:
            whole = concatenate(waiting)
            cut = held - held % rows
            for first in range(0, cut, rows):
                yield whole.rows(slice(first, first + rows))
            waiting, held = [whole.rows(slice(cut, None))], held - cut
    if held:
        yield concatenate(waiting)


def concatenate(chunks: list[Trace]) -> Trace:
    """Successive chunks of one trace as one; `sources` are those of the last, which has them all."""
    if len(chunks) == 1:
        return chunks[0]
    return Trace(
        sources=chunks[-1].sources,
        start=chunks[-1].start,
        arrival_s=np.concatenate([chunk.arrival_s for chunk in chunks]),
        source=np.concatenate([chunk.source for chunk in chunks]),
        input_tokens=np.concatenate([chunk.input_tokens for chunk in chunks]),
        output_tokens=np.concatenate([chunk.output_tokens for chunk in chunks]),
        extras={name: np.concatenate([chunk.extras[name] for chunk in chunks]) for name in chunks[0].extras},
    )
