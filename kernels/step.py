"""Kernels of FEATURES.md section 3.3: this snapshot against the one before.

Row i - 1 is the previous valid snapshot; where it is more than ``max_staleness`` older, or is not
there, there is no previous one and the row is NaN.
"""

import math

from tickstate.kernels._jit import Block, Floats, Int, Ints, Levels, helper, kernel


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
        out[0, o] = math.log(mid[i] / mid[i - 1])
        out[1, o] = v
        out[2, o] = math.nan
        if not math.isnan(v) and not math.isnan(before):
            out[2, o] = (v - before) / ((capture_ts[i] - capture_ts[i - 2]) / 1e6 / 2.0)


@helper
def side_flow(price, size, i, level, sign):
    """e of one side and level: what arrived less what left. ``sign`` +1 bids, -1 asks (Cont et al., eq. 3)."""
    p, before = sign * price[i, level], sign * price[i - 1, level]
    if p > before:
        return size[i, level]
    if p < before:
        return -size[i - 1, level]
    return size[i, level] - size[i - 1, level]


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
    w = weights.shape[0]
    for i in range(start, capture_ts.shape[0]):
        o = i - start
        if not has_previous(capture_ts, i, max_staleness):
            for j in range(w + 1):
                out[j, o] = math.nan
            continue
        bid, ask = 0.0, 0.0
        for j in range(w):
            e_bid = e_ask = math.nan
            if j < bid_price.shape[1]:
                if not math.isnan(bid_price[i, j]) and not math.isnan(bid_price[i - 1, j]):
                    e_bid = side_flow(bid_price, bid_size, i, j, 1.0)
                    bid += weights[j] * e_bid
                if not math.isnan(ask_price[i, j]) and not math.isnan(ask_price[i - 1, j]):
                    e_ask = side_flow(ask_price, ask_size, i, j, -1.0)
                    ask += weights[j] * e_ask
            out[j, o] = e_bid - e_ask
        out[w, o] = bid - ask
