"""Qwen-Bailian traces (Alibaba): the keys of Mooncake, but times in seconds, blocks of 16 tokens, and chats.

In some of them a hash is of its block alone.
Source: https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon (Apache-2.0); Wang et al., USENIX ATC 2025.
"""

from traces.formats.hashed import HashedPrompts

READER = HashedPrompts(
    marks=(frozenset({"timestamp", "input_length", "output_length", "chat_id", "parent_chat_id"}),),
    time_unit="s",
    block_tokens=16,
    chained=False,
)
