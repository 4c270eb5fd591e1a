"""Mooncake traces (Kimi): JSON lines with a time in milliseconds, lengths, and the hashes of blocks of 512 tokens.

A file without `hash_ids`, as others write it in this form, is read too; nothing is then known to be seen before. So is
one that has them and calls its lengths otherwise, and sessions whose later turns state a `delay`. Source:
https://github.com/kvcache-ai/Mooncake (Apache-2.0); Qin et al., FAST 2025.
"""

from traces.formats.hashed import HashedPrompts

READER = HashedPrompts(
    marks=(frozenset({"timestamp", "input_length", "output_length"}), frozenset({"timestamp", "hash_ids"})),
    time_unit="ms",
    block_tokens=512,
    chained=True,
)
