"""Named random streams: one seed, one result, whatever else draws random numbers."""

import zlib

import numpy as np
import numpy.typing as npt

# SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): its n-th output is a function of key and n alone.
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
UNIT = 2.0**-53


def _sequence(seed: int, name: str) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(name.encode())])


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator of the stream `name` under `seed`.

    Streams of different names are independent; adding a stream does not change what another one gives.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, name)))


def draw_key(seed: int, name: str) -> int:
    """Key of the stream `name` of numbered draws under `seed`, an unsigned 64-bit integer."""
    return int(_sequence(seed, name).generate_state(1, np.uint64)[0])


def draws(key: int, first: int, count: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1) of `count` requests from number `first` on, shape (count,).

    A request's draw depends on its number alone, so that a request can be routed again long after it arrived, by
    either engine, without any draw being kept.
    """
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(GOLDEN_GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_2)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * UNIT
