"""The same in plain Python, slower: `tokenfleet replay --router examples/plain_router.py:keep_short_answers_apart`."""


def keep_short_answers_apart(outstanding_tokens, held, routed, uniform, input_tokens, output_tokens):
    """Short answers go to the first half of the replicas, long ones to the second."""
    middle = len(held) // 2
    half = range(middle) if output_tokens < 200 and middle else range(middle, len(held))
    return min(half, key=lambda replica: outstanding_tokens[replica])
