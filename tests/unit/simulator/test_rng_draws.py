"""Numbered draws: SplitMix64, the same whoever asks for which part of them, uniform, and apart from each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simulator.rng import draw_key, draws, stream

KEYS = st.integers(0, 2**64 - 1)


def test_draws_are_the_published_splitmix64():
    """The first outputs for seed 1234567, as Rosetta Code and others state them; a draw is their upper 53 bits."""
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert draws(1234567, 0, 5).tolist() == [(word >> 11) / 2**53 for word in words]


def by_hand(key, number):
    """One draw in Python's own integers."""
    mask = 2**64 - 1
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / 2**53


@given(KEYS, st.integers(0, 2**40), st.integers(0, 20))
def test_draws_are_numbered(key, first, count):
    assert draws(key, first, count).tolist() == [by_hand(key, number) for number in range(first, first + count)]


@given(KEYS, st.lists(st.integers(0, 30), max_size=6))
def test_parts_are_the_whole(key, sizes):
    starts = np.cumsum([0, *sizes])
    parts = [draws(key, int(start), size) for start, size in zip(starts, sizes, strict=False)]
    assert np.concatenate([np.zeros(0), *parts]).tolist() == draws(key, 0, sum(sizes)).tolist()


def test_draws_are_floats_from_zero_to_below_one():
    sample = draws(draw_key(0, "router"), 0, 10**6)
    assert sample.dtype == np.float64
    assert sample.min() >= 0.0
    assert sample.max() < 1.0
    assert (sample * 2**53 % 1 == 0).all()


@pytest.mark.parametrize("name", ["router", "balancer"])
def test_draws_are_uniform(name):
    """Kolmogorov-Smirnov, and chi-square over cells of single draws and of neighbours; p-values of a fixed seed."""
    sample = draws(draw_key(0, name), 0, 200_000)
    assert stats.kstest(sample, "uniform").pvalue > 0.01
    assert stats.chisquare(np.bincount((sample * 100).astype(int), minlength=100)).pvalue > 0.01
    pairs = (sample[:-1:2] * 20).astype(int) * 20 + (sample[1::2] * 20).astype(int)
    assert stats.chisquare(np.bincount(pairs, minlength=400)).pvalue > 0.01


def test_streams_and_seeds_are_apart():
    samples = [draws(draw_key(seed, name), 0, 50_000) for seed in (0, 1) for name in ("router", "balancer")]
    correlation = np.corrcoef(samples)[np.triu_indices(4, 1)]
    assert np.abs(correlation).max() < 4 / np.sqrt(50_000)
    assert len({sample[0] for sample in samples}) == 4


def test_keys_are_repeatable_and_independent_of_the_generators():
    assert draw_key(3, "router") == draw_key(3, "router")
    assert 0 <= draw_key(3, "router") < 2**64
    assert draws(draw_key(3, "router"), 0, 3).tolist() != stream(3, "router").random(3).tolist()
