"""From Arrow's list columns to dense level arrays, and the flag of every snapshot."""

import math

import numpy as np

from tickstate.kernels._jit import (
    Bytes,
    Float,
    Floats,
    Int,
    Ints,
    Levels,
    Offsets,
    OutBytes,
    OutInts,
    OutLevels,
    helper,
    kernel,
)  # fmt: skip
from tickstate.kernels.blocks import ROWS, At

OK, EMPTY, ONE_SIDED, BAD_VALUE, UNSORTED, CROSSED, LOCKED = range(7)

FLAGS = ("ok", "empty", "one_sided", "bad_value", "unsorted", "crossed", "locked")
"""Names of the flags, by code; every code but 0 takes the row out of every feature."""

FAULT_VALUE, FAULT_ORDER = 1, 2


WIDEST = 512
"""Levels a snapshot up to which snapshots are turned together."""


@helper
def measure_lists(offsets, widths):
    """How many values each list has; returns the least and the greatest of those."""
    for r in range(widths.shape[0]):
        widths[r] = offsets[r + 1] - offsets[r]
    low, high = widths[0], widths[0]
    for r in range(widths.shape[0]):
        low, high = min(low, widths[r]), max(high, widths[r])
    return low, high


@helper
def pad_lists(values, offsets, width, out):
    """out = the lists one after the other, NaN where one has fewer than ``width`` values."""
    for r in range(offsets.shape[0] - 1):
        first, count, row = offsets[r], offsets[r + 1] - offsets[r], out[r * width : (r + 1) * width]
        for j in range(count):
            row[j] = values[first + j]
        for j in range(count, width):
            row[j] = math.nan


@helper
def turn(values, width, rows, at, out):
    """Columns ``at`` .. ``at`` + ``rows`` of ``out`` = lists of ``width`` values that lie one after the other.

    Four lists at a time, level by level: that reads and writes what lies side by side.
    """
    together = rows - rows % 4
    for r in range(0, together, 4):
        a, b = values[r * width : (r + 1) * width], values[(r + 1) * width : (r + 2) * width]
        c, d = values[(r + 2) * width : (r + 3) * width], values[(r + 3) * width : (r + 4) * width]
        for level in range(min(width, out.shape[0])):
            j, to = At(level), At(at + r)
            out[j, to], out[j, to + At(1)], out[j, to + At(2)], out[j, to + At(3)] = a[j], b[j], c[j], d[j]
    for r in range(together, rows):
        for level in range(min(width, out.shape[0])):
            out[level, at + r] = values[r * width + level]
    out[width:, at : at + rows] = math.nan


@helper
def count_wrong(price, size, sign):
    """How many levels are no price and size or 0, and how many are not worse than the one before them."""
    values, order, before, after = 0, 0, price[:-1], price[1:]
    for k in range(price.shape[0]):
        # a NaN fails every comparison, so that nulls are caught as well
        known = (price[k] > 0.0) & (price[k] < math.inf) & (size[k] > 0.0) & (size[k] < math.inf)
        values += 0 if known else 1
    for k in range(before.shape[0]):
        order += 0 if sign * after[k] < sign * before[k] else 1
    return values + order


@helper
def count_ends(price, width, sign):
    """How many lists of ``width`` prices do not begin with a worse one than the list before them ended with."""
    ends = 0
    for k in range(width, price.shape[0], max(width, 1)):
        ends += 0 if sign * price[At(k)] < sign * price[At(k - 1)] else 1
    return ends


@helper
def fill_general(price, size, begin, end, sign, at, out_price, out_size):
    """One side of one snapshot, whatever it holds: copies what is a level to column ``at``, returns how many are, and
    the faults."""
    found, fault, last, depth = 0, 0, math.inf, out_price.shape[0]
    for j in range(begin, end):
        p, s = price[j], size[j]
        if s == 0.0:
            continue
        if not (0.0 < p < math.inf) or not (0.0 < s < math.inf):
            fault |= FAULT_VALUE
        if not (sign * p < last):
            fault |= FAULT_ORDER
        last = sign * p
        if found < depth:
            out_price[found, at], out_size[found, at] = p, s
        found += 1
    for j in range(min(found, depth), depth):
        out_price[j, at] = out_size[j, at] = math.nan
    return found, fault


@kernel
def fill_side(
    offsets: Offsets, price: Floats, size: Floats, sign: Float, at: Int,
    levels: OutInts, faults: OutBytes, out_price: OutLevels, out_size: OutLevels,
) -> None:  # fmt: skip
    """Dense levels of one side of n snapshots, in one pass over Arrow's flat values.

    ``offsets`` (n + 1) delimit each snapshot in ``price`` and ``size`` (null = NaN), best first. ``sign`` is +1
    where prices must descend (bids) and -1 where they must ascend (asks). Levels of size 0 are left out.
    ``levels`` (n) counts all the others, ``faults`` (n) has FAULT_VALUE and FAULT_ORDER over all of them;
    columns ``at`` .. at + n of ``out_*`` (depth, any) hold the first ``depth``, NaN where absent.
    FEATURES.md section 1, "Book levels". Snapshots are turned and looked at together, as SIMD; where any of them has
    fewer levels or a wrong one they are looked at one by one, and a wrong one is done by itself.
    """
    n, padded = levels.shape[0], np.empty((2, ROWS * WIDEST))
    for i in range(0, n, ROWS):
        rows = min(ROWS, n - i)
        lists = offsets[i : i + rows + 1]
        first, last = lists[0], lists[rows]
        narrowest, width = measure_lists(lists, levels[i : i + rows])
        faults[i : i + rows] = 0
        prices, sizes = price[first:last], size[first:last]
        if narrowest < width <= WIDEST:
            pad_lists(price, lists, width, padded[0])
            pad_lists(size, lists, width, padded[1])
            prices, sizes = padded[0, : rows * width], padded[1, : rows * width]
        if width <= WIDEST:
            turn(prices, width, rows, at + i, out_price)
            turn(sizes, width, rows, at + i, out_size)
            if narrowest == width and count_wrong(prices, sizes, sign) == count_ends(prices, width, sign):
                continue
        for r in range(i, i + rows):
            begin, end = offsets[r], offsets[r + 1]
            if width > WIDEST or count_wrong(price[begin:end], size[begin:end], sign) > 0:
                levels[r], faults[r] = fill_general(price, size, begin, end, sign, at + r, out_price, out_size)


@kernel
def flag_snapshots(
    bid_levels: Ints, ask_levels: Ints, bid_faults: Bytes, ask_faults: Bytes,
    bid_price: Levels, ask_price: Levels, at: Int, out: OutBytes,
) -> None:  # fmt: skip
    """out (n) = the first flag that applies, in the order of FEATURES.md section 1 ("Valid snapshot").

    Snapshot i is column ``at`` + i of the level arrays.
    """
    for i in range(out.shape[0]):
        faults = bid_faults[i] | ask_faults[i]
        b, a = bid_price[0, at + i], ask_price[0, at + i]
        if bid_levels[i] == 0 and ask_levels[i] == 0:
            out[i] = EMPTY
        elif bid_levels[i] == 0 or ask_levels[i] == 0:
            out[i] = ONE_SIDED
        elif faults & FAULT_VALUE:
            out[i] = BAD_VALUE
        elif faults & FAULT_ORDER:
            out[i] = UNSORTED
        elif b > a:
            out[i] = CROSSED
        elif b == a:
            out[i] = LOCKED
        else:
            out[i] = OK
