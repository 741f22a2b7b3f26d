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
    kernel,
)  # fmt: skip

OK, EMPTY, ONE_SIDED, BAD_VALUE, UNSORTED, CROSSED, LOCKED = range(7)

FLAGS = ("ok", "empty", "one_sided", "bad_value", "unsorted", "crossed", "locked")
"""Names of the flags, by code; every code but 0 takes the row out of every feature."""

FAULT_VALUE, FAULT_ORDER = 1, 2


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
    FEATURES.md section 1, "Book levels".
    """
    depth = out_price.shape[1]
    for i in range(levels.shape[0]):
        r, found, fault, last = lead + i, 0, 0, math.inf
        for j in range(offsets[i], offsets[i + 1]):
            p, s = price[j], size[j]
            if s == 0.0:
                continue
            # a NaN fails every comparison, so "not <" catches nulls as well
            if not (0.0 < p < math.inf) or not (0.0 < s < math.inf):
                fault |= FAULT_VALUE
            if not (sign * p < last):
                fault |= FAULT_ORDER
            last = sign * p
            if found < depth:
                out_price[r, found] = p
                out_size[r, found] = s
            found += 1
        for j in range(min(found, depth), depth):
            out_price[r, j] = math.nan
            out_size[r, j] = math.nan
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
