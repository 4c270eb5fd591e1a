"""A step time of one's own: `tokenfleet replay --step-time examples/step_time.py:crowded`."""

from numba import njit


@njit
def crowded(prefill_tokens, sequences, context_tokens, base_s, prefill_s, decode_s, context_s):
    """The deployment's own step time, and 0.2 ms more for each sequence beyond 16."""
    affine_s = base_s + prefill_s * prefill_tokens + decode_s * sequences + context_s * context_tokens
    return affine_s + 2e-4 * max(0, sequences - 16)
