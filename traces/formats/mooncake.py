"""Mooncake traces (Kimi): JSON lines with a time in milliseconds, lengths, and the hashes of the prompt's blocks.

A block has 512 tokens; equal hashes are equal blocks after equal beginnings. `prefix_tokens` is what a cache that
never forgets would have of a prompt: its first blocks that earlier prompts had, and no more than its length. A file
without `hash_ids`, as others write it in this form, is read too; nothing is then known to be seen before. Source:
https://github.com/kvcache-ai/Mooncake (Apache-2.0); Qin et al., FAST 2025.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.columns import Columns
from traces.io.jsonlines import first_object, json_blocks
from traces.io.reader import Asked, Block, short, shown
from traces.io.rows import is_count

BLOCK_TOKENS = 512
_KEYS = frozenset({"timestamp", "input_length", "output_length"})
_COLUMNS = Columns(time="timestamp", input_tokens="input_length", output_tokens="output_length", time_unit="ms")


class Mooncake:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "line"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a line has the three keys. One with many hashes may be longer than what is known of it."""
        lines = head.split(b"\n") if head.startswith(b"{") else []
        return any(all(b'"%s"' % key.encode() in line for key in _KEYS) for line in lines)

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        first = first_object(path)
        if first is not None and not _KEYS.issubset(first):
            missing = ", ".join(sorted(_KEYS.difference(first)))
            raise InputError(f"{path}: line 1: expected the keys {', '.join(sorted(_KEYS))}; missing: {missing}")
        seen: set[int] = set()

        def prefix_tokens(request: dict[str, Any]) -> dict[str, int]:
            hashes = request.get("hash_ids", [])
            if not isinstance(hashes, list) or not all(isinstance(value, int) for value in hashes):
                raise ValueError(f"expected a list of integers in hash_ids, found {short(shown(hashes))[1:-1]}")
            known = next((k for k, value in enumerate(hashes) if value not in seen), len(hashes))
            seen.update(hashes)
            length: Any = request.get("input_length")
            most = int(length) if is_count(length) else 0
            return {"prefix_tokens": min(known * BLOCK_TOKENS, most)}

        yield from json_blocks(path, asked, _COLUMNS, prefix_tokens, ("prefix_tokens",))


READER = Mooncake()
