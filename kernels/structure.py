"""Kernels of FEATURES.md section 3.2: functions of one snapshot alone.

Arrays: ``bid_price``, ``bid_size``, ``ask_price``, ``ask_size`` (l, n), best level first, NaN where absent;
``bid_levels``, ``ask_levels`` (n), the numbers of levels present, at most l. Every row is a valid snapshot.

How they go through rows and levels: ``kernels/blocks.py``. A function named ``*_block`` does the rows of one, from
``begin`` on in the level arrays and o .. end in ``out``, so that ``kernels/whole.py`` can do all of them in turn.
Those of distances from the mid are in ``bands.py`` and ``slope.py``.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Float, Int, Ints, Levels, helper, kernel
from tickstate.kernels.blocks import ROWS, add_present, fill_imbalance, fill_mids, full_levels, sum_levels
from tickstate.kernels.elementary import fill_exponentials


@kernel
def top_of_book(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block
) -> None:
    """mid, spread, spread / mid, size-weighted mid, its distance from the mid. k = 5."""
    bids, sizes, asks, lots = bid_price[0, start:], bid_size[0, start:], ask_price[0, start:], ask_size[0, start:]
    for o in range(out.shape[1]):
        b, a, q, r = bids[o], asks[o], sizes[o], lots[o]
        mid = (b + a) / 2.0
        weighted = (q * a + r * b) / (q + r)
        out[0, o] = mid
        out[1, o] = a - b
        out[2, o] = (a - b) / mid
        out[3, o] = weighted
        out[4, o] = weighted - mid


@helper
def imbalance_block(bid_size, ask_size, begin, counts, out, o, end):
    """``depth_imbalance`` of a block."""
    c, depth, last = counts.shape[0], bid_size.shape[0], begin + end - o
    bid, ask = out[c, o:end], out[c + 1, o:end]
    bid[:] = 0.0
    ask[:] = 0.0
    k = 0
    for j in range(depth):
        add_present(bid_size[j, begin:last], bid)
        add_present(ask_size[j, begin:last], ask)
        while k < c and (counts[k] == j + 1 or j + 1 == depth):
            fill_imbalance(bid, ask, out[k, o:end])
            k += 1
    fill_imbalance(bid, ask, out[c + 2, o:end])


@kernel
def depth_imbalance(bid_size: Levels, ask_size: Levels, start: Int, counts: Ints, out: Block) -> None:
    """(B - A) / (B + A) over the first ``counts[j]`` levels a side (rows 0 .. c of out; ``counts`` ascend), then B, A
    and the imbalance over all present levels. Lots, lots, 1. k = c + 3."""
    for o in range(0, out.shape[1], ROWS):
        imbalance_block(bid_size, ask_size, start + o, counts, out, o, min(o + ROWS, out.shape[1]))


@helper
def add_products(x, y, total):
    """Add x * y of one level to ``total`` where it is present."""
    for r in range(total.shape[0]):
        total[r] += x[r] * y[r] if y[r] == y[r] else 0.0


@helper
def vwap_levels(price, size, begin, end, total, out):
    """out = sum(price * size) / sum(size) over the first 5 levels of the rows begin .. end."""
    sum_levels(size, begin, end, 5, total)
    out[:] = 0.0
    for j in range(min(5, price.shape[0])):
        add_products(price[j, begin:end], size[j, begin:end], out)
    for r in range(out.shape[0]):
        out[r] = out[r] / total[r]


@helper
def vwap_block(bid_price, bid_size, ask_price, ask_size, begin, room, out, o, end):
    """``book_vwap`` of a block."""
    last, total = begin + end - o, room[: end - o]
    bid, ask, difference = out[0, o:end], out[1, o:end], out[2, o:end]
    for price, size, found in ((bid_price, bid_size, bid), (ask_price, ask_size, ask)):
        vwap_levels(price, size, begin, last, total, found)
    for r in range(end - o):
        difference[r] = ask[r] - bid[r]


@kernel
def book_vwap(bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block) -> None:
    """Size-weighted price of the first 5 levels a side, and their difference. Quote. k = 3."""
    room = np.empty(ROWS)
    for o in range(0, out.shape[1], ROWS):
        end = min(o + ROWS, out.shape[1])
        vwap_block(bid_price, bid_size, ask_price, ask_size, start + o, room, out, o, end)


@helper
def discounted_depth(price, size, begin, mid, scale, room, out):
    """out = sum of size * exp(scale * abs(price - mid)) over the levels of one side of a block. ``room`` (2, ROWS)."""
    n = mid.shape[0]
    x, weight = room[0, :n], room[1, :n]
    out[:] = 0.0
    for j in range(price.shape[0]):
        prices = price[j, begin : begin + n]
        for r in range(n):
            x[r] = scale[r] * abs(prices[r] - mid[r])
        fill_exponentials(x, weight)
        add_products(weight, size[j, begin : begin + n], out)


@helper
def smart_block(bid_price, bid_size, ask_price, ask_size, begin, mid, decay_bps, room, out, o, end):
    """``smart_depth`` of a block. ``room`` (3, ROWS)."""
    bid, ask, scale = out[0, o:end], out[1, o:end], room[2, : end - o]
    for r in range(end - o):
        scale[r] = -1e4 / (mid[r] * decay_bps)  # one division a row, not two a level
    for price, size, found in ((bid_price, bid_size, bid), (ask_price, ask_size, ask)):
        discounted_depth(price, size, begin, mid, scale, room, found)
    fill_imbalance(bid, ask, out[2, o:end])


@kernel
def smart_depth(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, decay_bps: Float, out: Block
) -> None:
    """Depth discounted by distance from the mid, sum of size * exp(-d / decay_bps), of bids and asks (lots), and their
    imbalance. k = 3."""
    room, mids = np.empty((3, ROWS)), np.empty(ROWS)
    for o in range(0, out.shape[1], ROWS):
        begin, end = start + o, min(o + ROWS, out.shape[1])
        mid = mids[: end - o]
        fill_mids(bid_price[0, begin:], ask_price[0, begin:], mid)
        smart_block(bid_price, bid_size, ask_price, ask_size, begin, mid, decay_bps, room, out, o, end)


@helper
def gravity_block(bid_price, bid_size, ask_price, ask_size, begin, mid, room, out, o, end):
    """``center_of_gravity`` of a block. ``room`` (2, ROWS)."""
    value, total = room[0, : end - o], room[1, : end - o]
    value[:] = 0.0
    total[:] = 0.0
    for price, size in ((bid_price, bid_size), (ask_price, ask_size)):
        full = full_levels(size, begin, end - o)
        for j in range(price.shape[0]):
            prices, sizes = price[j, begin:], size[j, begin:]
            if j < full:
                for r in range(end - o):
                    value[r] += (prices[r] - mid[r]) * sizes[r]
                    total[r] += sizes[r]
            else:
                for r in range(end - o):
                    known = sizes[r] == sizes[r]
                    value[r] += (prices[r] - mid[r]) * sizes[r] if known else 0.0
                    total[r] += sizes[r] if known else 0.0
    center, offset = out[0, o:end], out[1, o:end]
    for r in range(end - o):
        center[r] = mid[r] + value[r] / total[r]
        offset[r] = 1e4 * (value[r] / total[r]) / mid[r]


@kernel
def center_of_gravity(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block
) -> None:
    """sum(price * size) / sum(size) of both sides (quote), and its distance from the mid (bps). k = 2.

    The sum is taken of distances from the mid, which is the same number with less rounding.
    """
    room, mids = np.empty((2, ROWS)), np.empty(ROWS)
    for o in range(0, out.shape[1], ROWS):
        begin, end = start + o, min(o + ROWS, out.shape[1])
        mid = mids[: end - o]
        fill_mids(bid_price[0, begin:], ask_price[0, begin:], mid)
        gravity_block(bid_price, bid_size, ask_price, ask_size, begin, mid, room, out, o, end)


@helper
def add_squares(size, total, out):
    """Add (size / total)^2 of one level where it is present."""
    for r in range(out.shape[0]):
        share = size[r] / total[r]
        out[r] += share * share if share == share else 0.0


@helper
def concentrations(size, begin, end, total, out):
    """out = sum of (size / total)^2 over one side: Herfindahl, 1 where one level holds everything."""
    sum_levels(size, begin, end, size.shape[0], total)
    out[:] = 0.0
    for j in range(size.shape[0]):
        add_squares(size[j, begin:end], total, out)


@helper
def fill_quotients(size, begin, end, out):
    """out = size_4 / size_0, NaN with fewer than 5 levels."""
    if size.shape[0] < 5:
        out[:] = math.nan
        return
    first, fifth = size[0, begin:end], size[4, begin:end]
    for r in range(out.shape[0]):
        out[r] = fifth[r] / first[r]


@helper
def shape_block(bid_price, bid_size, ask_price, ask_size, begin, room, out, o, end):
    """``book_shape`` of a block. ``room`` (2, ROWS)."""
    last, n = begin + end - o, end - o
    bid, ask, mean = out[0, o:end], out[1, o:end], out[2, o:end]
    below, above = room[0, :n], room[1, :n]
    for side, size in enumerate((bid_size, ask_size)):
        fill_quotients(size, begin, last, out[side, o:end])
        concentrations(size, begin, last, below, out[3 + side, o:end])
    for r in range(n):
        mean[r] = (bid[r] + ask[r]) / 2.0
    bids, asks = bid_price[0, begin:last], ask_price[0, begin:last]
    for j in range(2):
        for size, found in ((bid_size, below), (ask_size, above)):
            sum_levels(size, begin, last, 3 + 3 * j, found)
        depth = out[5 + j, o:end]
        for r in range(n):
            depth[r] = (asks[r] - bids[r]) / (below[r] + above[r])


@kernel
def book_shape(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block
) -> None:
    """size_4 / size_0 of bid and ask and their mean (NaN with fewer than 5 levels), concentration of bid and
    ask, spread / (first 3, 6 sizes of both sides) in quote/lot. k = 7."""
    room = np.empty((2, ROWS))
    for o in range(0, out.shape[1], ROWS):
        end = min(o + ROWS, out.shape[1])
        shape_block(bid_price, bid_size, ask_price, ask_size, start + o, room, out, o, end)
