"""Static batching, as before Orca: `tokenfleet replay --admission examples/admission.py:batch_by_batch`."""

from numba import njit


@njit
def batch_by_batch(prompt_tokens, free_kv_tokens, budget_tokens, sequences, waiting):
    """Admit nobody until the whole batch has finished, then all that wait, whatever the token budget says."""
    return prompt_tokens if sequences == 0 else -1
