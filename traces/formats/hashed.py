"""JSON lines with the hashes of a prompt's blocks, as Mooncake began to write them and others do in their own units.

Equal hashes are equal blocks; a block counts as seen before only if all blocks before it in the prompt are, which some
hashes tell themselves and others do not. `prefix_tokens` is what a cache that never forgets would have of a prompt: its
first blocks that earlier prompts had, and no more than its length.

A later turn of a session may state a `delay` after the turn before it instead of a time. How long that one is served is
not known here: the delay counts from its arrival, and the user is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.columns import Columns
from traces.io.doubts import doubted
from traces.io.jsonlines import first_object, json_blocks, record_columns
from traces.io.reader import Asked, Block, short, shown
from traces.io.rows import is_count

_OWN = {"arrival_s": "timestamp", "input_tokens": "input_length", "output_tokens": "output_length"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedPrompts:
    """A format of this kind: a `traces.io.reader.Reader`.

    Attributes
    ----------
    marks
        Sets of keys of which one shows, whole, that a line is of this format.
    time_unit, block_tokens
        Of its times and its blocks, unless the user says otherwise.
    chained
        Whether a hash is of a block and of all before it.
    """

    marks: tuple[frozenset[str], ...]
    time_unit: str
    block_tokens: int
    chained: bool
    unit: str = "line"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a line has the keys. One with many hashes may be longer than what is known of it."""
        lines = head.split(b"\n") if head.startswith(b"{") else []
        return any(all(b'"%s"' % key.encode() in line for key in keys) for keys in self.marks for line in lines)

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        first = first_object(path) or {}
        own = {role: key for role, key in _OWN.items() if key in first}
        columns = record_columns(first, replace(asked, columns={**own, **asked.columns}), path)
        columns = replace(columns, time_unit=columns.time_unit or self.time_unit)
        prompts = _Prompts(columns, asked.block_tokens or self.block_tokens, chained=self.chained)
        blocks = json_blocks(path, asked, columns, extra=prompts.fields, extras=("prefix_tokens",))
        yield from doubted(blocks, path, asked, self.time_unit)
        prompts.tell(asked)
        if asked.block_tokens is None:
            prompts.refuse_odd_blocks(path)


class _Prompts:
    """What is known of the prompts so far."""

    def __init__(self, columns: Columns, block_tokens: int, *, chained: bool) -> None:
        self._columns = columns
        self._chained = chained
        self._block_tokens = block_tokens
        self._seen: set[int] = set()
        self._sessions: dict[Any, float] = {}  # when the last turn arrived
        self._delayed = self._hashed = self._odd = self._tokens = self._blocks = 0

    def fields(self, request: dict[str, Any]) -> dict[str, Any]:
        """The fields that no key of a request has."""
        hashes = request.get("hash_ids", [])
        if not isinstance(hashes, list) or not all(isinstance(value, int) for value in hashes):
            raise ValueError(f"expected a list of integers in hash_ids, found {short(shown(hashes))[1:-1]}")
        length = request.get(self._columns.input_tokens)
        tokens = int(length) if is_count(length) else 0  # type: ignore[arg-type]
        self._count(len(hashes), tokens)
        fields = {"prefix_tokens": min(self._known(hashes) * self._block_tokens, tokens)}
        return {**fields, **self._arrival(request)} if "session_id" in request else fields

    def _known(self, hashes: list[int]) -> int:
        """How many of the first blocks earlier prompts had, after the same blocks."""
        keys = hashes if self._chained else list(accumulate(hashes, lambda *pair: hash(pair), initial=0))[1:]
        known = next((place for place, key in enumerate(keys) if key not in self._seen), len(keys))
        self._seen.update(keys)
        return known

    def _arrival(self, request: dict[str, Any]) -> dict[str, Any]:
        """When a turn arrives that states no time."""
        session, time, delay = (request.get(key) for key in ("session_id", self._columns.time, "delay"))
        if not isinstance(session, (str, int)):
            return {}
        if time is None and _is_number(delay) and session in self._sessions:
            time = self._sessions[session] + delay  # type: ignore[operator]
            self._delayed += 1
        if _is_number(time):
            self._sessions[session] = time  # type: ignore[assignment]
            return {"arrival_s": time}
        return {}

    def _count(self, blocks: int, tokens: int) -> None:
        """Whether the blocks fit the prompt; the last one may be left out, and one more does no harm."""
        if blocks and tokens:
            self._hashed += 1
            self._odd += not (blocks - 2) * self._block_tokens < tokens < (blocks + 2) * self._block_tokens
            self._tokens += tokens
            self._blocks += blocks

    def tell(self, asked: Asked) -> None:
        """Tell the user of the turns that state no time."""
        if self._delayed:
            asked.tell(
                f"{self._delayed:,} later turns of sessions state only a delay: each is taken to arrive that long "
                "after the turn before it arrived, without the time in which that one is served"
            )

    def refuse_odd_blocks(self, path: Path) -> None:
        """Refuse a file whose prompts do not have as many tokens as their blocks."""
        if 2 * self._odd <= self._hashed:
            return
        mean = self._tokens / self._blocks  # the last block of a prompt is not full
        likely = 1 << max(int(mean).bit_length() - 1, 0)
        likely = likely if likely >= mean else 2 * likely
        raise InputError(
            f"{path}: {self._odd:,} of {self._hashed:,} prompts do not fit their hash_ids: with blocks of "
            f"{self._block_tokens} tokens these are {self._blocks * self._block_tokens:,} tokens, and the prompts have "
            f"{self._tokens:,}; say how long a block is, rather --block-tokens {likely}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
