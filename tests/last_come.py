"""A third discipline, of the tests' own: last come, first served. It stands for what somebody adds.

It batches like `batching`, but whoever comes goes to the head of the queue; the kernel does not know it.
"""

from simulator.replica.batching import Batching, BatchingReplica


class LastComeReplica(BatchingReplica):
    """Continuous batching with the queue the other way round."""

    __slots__ = ()

    def enqueue(self, request, now):
        super().enqueue(request, now)
        self._waiting.rotate(1)


class LastCome(Batching):
    """The work of a request is that of `batching`, and so is what is expected on average."""

    name = "last-come"
    kernel = None

    def replica(self, number, spec, book):
        return LastComeReplica(number, spec, book)


LAST_COME = LastCome()
