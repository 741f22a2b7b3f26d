"""What kernels of many levels are made of: a block of neighbouring rows, level by level.

A kernel goes through its rows in blocks of ``ROWS`` and through the levels of a block one by one, so that every inner
loop runs over neighbouring rows of one level: as SIMD, with each row's sums added in the order of its levels. An
absent level adds 0, which changes no sum. Row by row and level by level the same took three times as long. A loop that
writes more than two arrays is none that the compiler makes SIMD of: it would have to prove too many of them apart.

Most books have all levels in all rows. Those that every row of a block has (``full_levels``) are added without asking
which rows have them: of sums of two terms that was more than half of the time. The bits are the same.

A helper is worth half a second of the first run: numba compiles it for itself, once for every type of its arguments,
and again in each kernel that it is a part of. What one function alone needs stands in it.
"""

import math

import numpy as np

from tickstate.kernels._jit import helper

ROWS = 256
"""Rows of a block: what a kernel keeps of them stays in the cache of the core."""
At = np.uint64
"""Of an index in innermost loops: numba asks of a signed one whether it counts from the end, a third of their time."""


@helper
def ratio(x, y):
    """x / y, or NaN where y is 0."""
    return x / y if y != 0.0 else math.nan


@helper
def fill_imbalance(bid, ask, out):
    """out = (bid - ask) / (bid + ask), NaN where that is 0 / 0."""
    for r in range(out.shape[0]):
        out[r] = ratio(bid[r] - ask[r], bid[r] + ask[r])


@helper
def fill_mids(bid, ask, out):
    """out = the mids of touch prices."""
    for r in range(out.shape[0]):
        out[r] = (bid[r] + ask[r]) / 2.0


@helper
def fill_sides(bid_price, ask_price, begin, mid, below, above):
    """The mids of a block, and the distances of all its levels from them (l, ROWS), NaN where a level is absent.

    d(p) of FEATURES.md section 1, "Literal arithmetic": in bps.
    """
    fill_mids(bid_price[0, begin:], ask_price[0, begin:], mid)
    for price, distance in ((bid_price, below), (ask_price, above)):
        for j in range(price.shape[0]):
            prices, found = price[j, begin:], distance[j]
            for r in range(mid.shape[0]):
                found[r] = (1e4 * abs(prices[r] - mid[r])) / mid[r]


@helper
def full_levels(x, begin, n):
    """How many levels, best first, each of the n rows from ``begin`` on has: one at least, as valid snapshots do."""
    for full in range(x.shape[0], 1, -1):
        level, absent = x[full - 1, begin:], 0
        for r in range(n):
            absent += 1 if level[r] != level[r] else 0
        if absent == 0:
            return full
    return 1


@helper
def add_present(x, total):
    """Add one level to ``total`` where it is present."""
    for r in range(total.shape[0]):
        total[r] += x[r] if x[r] == x[r] else 0.0


@helper
def sum_levels(values, begin, end, count, total):
    """total = the sum of the first ``count`` levels of the rows begin .. end, best first."""
    total[:] = 0.0
    for j in range(min(count, values.shape[0])):
        add_present(values[j, begin:end], total)
