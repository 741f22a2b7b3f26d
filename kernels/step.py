"""Kernels of FEATURES.md section 3.3: this snapshot against the one before.

Row i - 1 is the previous valid snapshot; where it is more than ``max_staleness`` older, or is not
there, there is no previous one and the row is NaN.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, Levels, helper, kernel
from tickstate.kernels.blocks import full_levels
from tickstate.kernels.elementary import log

ROWS = 1024
"""Rows of a block: more than where kernels keep more of them, for levels that come from memory in longer stretches."""


@helper
def has_previous(capture_ts, i, max_staleness):
    """Whether row i has a previous snapshot at most ``max_staleness`` microseconds older."""
    return i > 0 and capture_ts[i] - capture_ts[i - 1] <= max_staleness


@helper
def velocity(capture_ts, mid, i, max_staleness):
    """(m - m_prev) / dt in quote per second; NaN without a previous row or where dt = 0."""
    if not has_previous(capture_ts, i, max_staleness) or capture_ts[i] == capture_ts[i - 1]:
        return math.nan
    return (mid[i] - mid[i - 1]) / ((capture_ts[i] - capture_ts[i - 1]) / 1e6)


@kernel
def mid_steps(capture_ts: Ints, mid: Floats, start: Int, max_staleness: Int, out: Block) -> None:
    """ln(m / m_prev), velocity and acceleration of the mid. k = 3; looks back two rows.

    Acceleration is (v - v_prev) / ((dt + dt_prev) / 2), quote per second squared, NaN where either v is.
    """
    for i in range(start, mid.shape[0]):
        o = i - start
        if not has_previous(capture_ts, i, max_staleness):
            out[0, o] = out[1, o] = out[2, o] = math.nan
            continue
        v = velocity(capture_ts, mid, i, max_staleness)
        before = velocity(capture_ts, mid, i - 1, max_staleness)
        out[0, o] = log(mid[i] / mid[i - 1])
        out[1, o] = v
        out[2, o] = math.nan
        if not math.isnan(v) and not math.isnan(before):
            out[2, o] = (v - before) / ((capture_ts[i] - capture_ts[i - 2]) / 1e6 / 2.0)


@helper
def add_flow(price, size, sign, known, weight, total, out):
    """out = e of one side and level for each row, what arrived less what left, less what ``out`` was. ``sign`` +1 bids,
    -1 asks (Cont et al., eq. 3).

    ``price`` and ``size`` begin one row earlier than the rest; NaN where the level is absent in either row or ``known``
    is 0. ``total`` gets weight * e of the others. Without ``known`` (none) nothing is asked: all are.
    """
    now, before, arrived, left, ask = price[1:], price, size[1:], size, known.shape[0] > 0
    for r in range(out.shape[0]):
        p, q = sign * now[r], sign * before[r]
        e = arrived[r] if p > q else -left[r] if p < q else arrived[r] - left[r]
        present = not ask or ((p == p) & (q == q) & (known[r] == 1))
        total[r] += weight * e if present else 0.0
        out[r] = (e if present else math.nan) - out[r]


@helper
def fill_known(capture_ts, begin, max_staleness, out):
    """out = 1 where the rows from ``begin`` on have a previous snapshot; returns how many have."""
    known = 0
    for r in range(out.shape[0]):
        out[r] = 1 if capture_ts[begin + r] - capture_ts[begin + r - 1] <= max_staleness else 0
        known += out[r]
    return known


@kernel
def order_flow(
    capture_ts: Ints, bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels,
    start: Int, max_staleness: Int, weights: Floats, out: Block,
) -> None:  # fmt: skip
    """Order-flow imbalance of level 0, of levels 1 .. w - 1, and over all w levels weighted. k = w + 1.

    ``out[j]`` = e_bid_j - e_ask_j (Cont, Kukanov, Stoikov 2014, section 2; Xu, Gould, Howison 2018, section 2),
    NaN where level j is absent in either snapshot. ``out[w]`` = sum of weights[j] * e over the levels that a
    side has in both snapshots, each side on its own. Lots. Looks back one row.
    """
    w, depth = weights.shape[0], bid_price.shape[0]
    levels = min(w, depth)
    out[levels:w] = math.nan
    first = max(start, 1)
    out[:, : first - start] = math.nan
    room, known = np.empty((2, ROWS)), np.empty(ROWS, np.int64)
    for i in range(first, capture_ts.shape[0], ROWS):
        end = min(i + ROWS, capture_ts.shape[0])
        n, o = end - i, i - start
        bid, ask, total, has = room[0, :n], room[1, :n], out[w, o : o + n], known[:n]
        plain = 0
        if fill_known(capture_ts, i, max_staleness, has) == n:
            plain = min(full_levels(bid_price[:levels], i - 1, n + 1), full_levels(ask_price[:levels], i - 1, n + 1))
        bid[:] = 0.0
        ask[:] = 0.0
        for j in range(levels):
            e, asked = out[j, o : o + n], has[:0] if j < plain else has
            e[:] = 0.0
            add_flow(ask_price[j, i - 1 : end], ask_size[j, i - 1 : end], -1.0, asked, weights[j], ask, e)
            add_flow(bid_price[j, i - 1 : end], bid_size[j, i - 1 : end], 1.0, asked, weights[j], bid, e)
        for r in range(n):
            total[r] = bid[r] - ask[r] if has[r] == 1 else math.nan
