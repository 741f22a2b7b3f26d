"""From Arrow's list columns to dense level arrays, and the flag of every snapshot."""

import math

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

OK, EMPTY, ONE_SIDED, BAD_VALUE, UNSORTED, CROSSED, LOCKED = range(7)

FLAGS = ("ok", "empty", "one_sided", "bad_value", "unsorted", "crossed", "locked")
"""Names of the flags, by code; every code but 0 takes the row out of every feature."""

FAULT_VALUE, FAULT_ORDER = 1, 2


@helper
def is_clean(price, size, sign):
    """Whether every level is a price and a size, none 0, better before worse.

    Sums of comparisons over arrays of their own, without a branch: so they run as SIMD, at a sixth of the time.
    """
    wrong, after = 0, price[1:]
    for j in range(price.shape[0]):
        # a NaN fails every comparison, so that nulls are caught as well
        known = (price[j] > 0.0) & (price[j] < math.inf) & (size[j] > 0.0) & (size[j] < math.inf)
        wrong += 0 if known else 1
    for j in range(after.shape[0]):
        wrong += 0 if sign * after[j] < sign * price[j] else 1
    return wrong == 0


@helper
def fill_unclean(price, size, begin, end, sign, prices, sizes):
    """One side with levels of size 0, or faults: copies what is a level, returns how many are, and the faults."""
    found, fault, last = 0, 0, math.inf
    for j in range(begin, end):
        p, s = price[j], size[j]
        if s == 0.0:
            continue
        if not (0.0 < p < math.inf) or not (0.0 < s < math.inf):
            fault |= FAULT_VALUE
        if not (sign * p < last):
            fault |= FAULT_ORDER
        last = sign * p
        if found < prices.shape[0]:
            prices[found], sizes[found] = p, s
        found += 1
    return found, fault


@kernel
def fill_side(
    offsets: Offsets, price: Floats, size: Floats, sign: Float, lead: Int,
    levels: OutInts, faults: OutBytes, out_price: OutLevels, out_size: OutLevels,
) -> None:  # fmt: skip
    """Dense levels of one side of n snapshots, in one pass over Arrow's flat values.

    ``offsets`` (n + 1) delimit each snapshot in ``price`` and ``size`` (null = NaN), best first. ``sign`` is +1
    where prices must descend (bids) and -1 where they must ascend (asks). Levels of size 0 are left out.
    ``levels`` (n) counts all the others, ``faults`` (n) has FAULT_VALUE and FAULT_ORDER over all of them;
    rows ``lead`` .. of ``out_*`` (lead + n, depth) hold the first ``depth``, NaN where absent.
    FEATURES.md section 1, "Book levels". Checking first whether a side is clean is four times as fast as the
    general loop alone.
    """
    depth = out_price.shape[1]
    for i in range(levels.shape[0]):
        prices, sizes, begin, end = out_price[lead + i], out_size[lead + i], offsets[i], offsets[i + 1]
        if is_clean(price[begin:end], size[begin:end], sign):
            found, fault = end - begin, 0
            for j in range(min(found, depth)):
                prices[j] = price[begin + j]
                sizes[j] = size[begin + j]
        else:
            found, fault = fill_unclean(price, size, begin, end, sign, prices, sizes)
        for j in range(min(found, depth), depth):
            prices[j] = math.nan
            sizes[j] = math.nan
        levels[i] = found
        faults[i] = fault


@kernel
def flag_snapshots(
    bid_levels: Ints, ask_levels: Ints, bid_faults: Bytes, ask_faults: Bytes,
    bid_price: Levels, ask_price: Levels, lead: Int, out: OutBytes,
) -> None:  # fmt: skip
    """out (n) = the first flag that applies, in the order of FEATURES.md section 1 ("Valid snapshot")."""
    for i in range(out.shape[0]):
        faults = bid_faults[i] | ask_faults[i]
        b, a = bid_price[lead + i, 0], ask_price[lead + i, 0]
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
