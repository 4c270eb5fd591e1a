"""Static batching, as before Orca: `tokenfleet replay --admission examples/admission.py:batch_by_batch`."""

from numba import njit


@njit
def batch_by_batch(prompt_tokens, free_kv_tokens, budget_tokens, sequences, waiting):
    """Admit nobody until the whole batch has finished, then as many as one step's token budget takes."""
    if sequences > 0 or budget_tokens <= 0:
        return -1
    return min(prompt_tokens, budget_tokens)
