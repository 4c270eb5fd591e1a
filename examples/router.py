"""A router of one's own: `tokenfleet replay --router examples/router.py:shortest_queue`."""

from numba import njit


@njit
def shortest_queue(outstanding_tokens, held, routed, uniform, input_tokens, output_tokens):
    """The replica with the fewest requests, of equals the one with the fewest tokens: it need not know the answers."""
    best = 0
    for replica in range(1, len(held)):
        if (held[replica], outstanding_tokens[replica]) < (held[best], outstanding_tokens[best]):
            best = replica
    return best
