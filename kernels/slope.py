"""How fast depth builds up (FEATURES.md section 3.2). Arrays and blocks as in ``structure.py``."""

import math

import numpy as np

from tickstate.kernels._jit import Block, Int, Ints, Levels, helper, kernel
from tickstate.kernels.blocks import ROWS, fill_sides, full_levels, ratio, sum_levels


@helper
def regression_slopes(distance, size, levels, begin, room, out):
    """out = least-squares slopes of cumulative size on d, in lots a bps; NaN with fewer than 3 levels.

    Two passes about the means: the one-pass form sum(xy) - n mean(x) mean(y) cancels on tight books.
    ``room`` (6, ROWS). In each pass first the levels that all rows have, then the others.
    """
    n = out.shape[0]
    depth, x, y, xx, xy, dx = room[0, :n], room[1, :n], room[2, :n], room[3, :n], room[4, :n], room[5, :n]
    room[:] = 0.0
    full = full_levels(size, begin, n)
    for j in range(distance.shape[0]):
        d, sizes = distance[j], size[j, begin:]
        if j < full:
            for r in range(n):
                depth[r] += sizes[r]
                y[r] += depth[r]
            for r in range(n):
                x[r] += d[r]
        else:
            for r in range(n):
                depth[r] += sizes[r] if sizes[r] == sizes[r] else 0.0
                y[r] += depth[r] if sizes[r] == sizes[r] else 0.0
            for r in range(n):
                x[r] += d[r] if d[r] == d[r] else 0.0
    for r in range(n):
        x[r] /= levels[r]
    for r in range(n):
        y[r] /= levels[r]
    depth[:] = 0.0
    for j in range(distance.shape[0]):
        d, sizes = distance[j], size[j, begin:]
        if j < full:
            for r in range(n):
                depth[r] += sizes[r]
                xy[r] += (d[r] - x[r]) * (depth[r] - y[r])
            for r in range(n):
                xx[r] += (d[r] - x[r]) * (d[r] - x[r])
        else:
            for r in range(n):
                dx[r] = d[r] - x[r] if sizes[r] == sizes[r] else 0.0
                depth[r] += sizes[r] if sizes[r] == sizes[r] else 0.0
            for r in range(n):
                xx[r] += dx[r] * dx[r]
                xy[r] += dx[r] * (depth[r] - y[r])
    for r in range(n):
        out[r] = ratio(xy[r], xx[r]) if levels[r] >= 3 else math.nan


@helper
def slope_block(
    below, above, bid_price, bid_size, ask_price, ask_size, bid_levels, ask_levels, begin, room, out, o, end
):  # fmt: skip
    """``book_slope`` of a block. ``room`` (6, ROWS)."""
    sides = ((below, bid_price, bid_size, bid_levels), (above, ask_price, ask_size, ask_levels))
    for side, (distance, price, size, levels) in enumerate(sides):
        simple = out[side, o:end]
        simple[:] = math.nan
        if price.shape[0] >= 5:
            sum_levels(size, begin, begin + end - o, 5, simple)
            first, fifth = price[0, begin:], price[4, begin:]
            for r in range(end - o):
                simple[r] = abs(first[r] - fifth[r]) / simple[r]  # NaN where the fifth is absent
        regression_slopes(distance, size, levels[begin:], begin, room, out[2 + side, o:end])


@kernel
def book_slope(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels,
    bid_levels: Ints, ask_levels: Ints, start: Int, out: Block,
) -> None:  # fmt: skip
    """Simple slopes of bid and ask (quote/lot), then regression slopes of bid and ask (lots/bps). k = 4."""
    depth, mids, room = bid_price.shape[0], np.empty(ROWS), np.empty((6, ROWS))
    below, above = np.empty((depth, ROWS)), np.empty((depth, ROWS))
    for o in range(0, out.shape[1], ROWS):
        begin, end = start + o, min(o + ROWS, out.shape[1])
        fill_sides(bid_price, ask_price, begin, mids[: end - o], below, above)
        slope_block(
            below, above, bid_price, bid_size, ask_price, ask_size, bid_levels, ask_levels, begin, room, out, o, end
        )  # fmt: skip
