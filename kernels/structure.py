"""Kernels of FEATURES.md section 3.2: functions of one snapshot alone.

Arrays: ``bid_price``, ``bid_size``, ``ask_price``, ``ask_size`` (n, l), best level first, NaN where absent;
``bid_levels``, ``ask_levels`` (n), the numbers of levels present, at most l. Every row is a valid snapshot.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Float, Floats, Int, Ints, Levels, helper, kernel

NEAR = 5.0
"""Distance from the mid up to which depth counts as near, in bps."""


@helper
def ratio(x, y):
    """x / y, or NaN where y is 0."""
    return x / y if y != 0.0 else math.nan


@helper
def sum_levels(values, row, count):
    """The sum of the first ``count`` values of a row, best level first."""
    total = 0.0
    for j in range(count):
        total += values[row, j]
    return total


@helper
def distance_bps(price, mid):
    """d(p) of FEATURES.md section 1, "Literal arithmetic": the bps distance of a price from the mid."""
    return (1e4 * abs(price - mid)) / mid


@helper
def fill_distances(price, row, mid, out):
    """out[j] = d of level j of a row, NaN where it is absent.

    All levels of a row at once, as SIMD: the division of one after the other cost more than all else that is done
    with it.
    """
    for j in range(out.shape[0]):
        out[j] = distance_bps(price[row, j], mid)


@kernel
def top_of_book(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block
) -> None:
    """mid, spread, spread / mid, size-weighted mid, its distance from the mid. k = 5."""
    for i in range(start, bid_price.shape[0]):
        b, a, q, r = bid_price[i, 0], ask_price[i, 0], bid_size[i, 0], ask_size[i, 0]
        mid = (b + a) / 2.0
        weighted = (q * a + r * b) / (q + r)
        o = i - start
        out[0, o] = mid
        out[1, o] = a - b
        out[2, o] = (a - b) / mid
        out[3, o] = weighted
        out[4, o] = weighted - mid


@kernel
def depth_imbalance(
    bid_size: Levels, ask_size: Levels, bid_levels: Ints, ask_levels: Ints, start: Int, counts: Ints, out: Block
) -> None:
    """(B - A) / (B + A) over the first ``counts[j]`` levels a side (rows 0 .. c of out), then B, A and the
    imbalance over all present levels. Lots, lots, 1. k = c + 3."""
    c = counts.shape[0]
    for i in range(start, bid_size.shape[0]):
        o = i - start
        for j in range(c):
            bid = sum_levels(bid_size, i, min(counts[j], bid_levels[i]))
            ask = sum_levels(ask_size, i, min(counts[j], ask_levels[i]))
            out[j, o] = (bid - ask) / (bid + ask)
        bid = sum_levels(bid_size, i, bid_levels[i])
        ask = sum_levels(ask_size, i, ask_levels[i])
        out[c, o] = bid
        out[c + 1, o] = ask
        out[c + 2, o] = (bid - ask) / (bid + ask)


@helper
def sum_bands(distance, size, row, count, edges, out):
    """Fill out[j] with the size of one side in band j, NaN where the side does not reach into it.

    ``distance`` of the levels of ``row``: it never falls from level to level, so that one pass over the levels
    does what comparing every level with every band would. Returns that of the deepest level.
    """
    reach = distance[count - 1]
    j = 0
    while edges[0] > 0.0 and j < count and distance[j] <= edges[0]:
        j += 1  # nearer than the first band
    for band in range(edges.shape[0] - 1):
        if reach <= edges[band]:
            out[band] = math.nan
            continue
        total = 0.0
        while j < count and distance[j] <= edges[band + 1]:
            total += size[row, j]
            j += 1
        out[band] = total
    return reach


@helper
def sum_near(bid, ask, bid_size, ask_size, row, bids, asks):
    """The size of both sides with d <= NEAR; ``bid`` and ``ask``: d of the levels. One loop without a branch."""
    below, above = 0.0, 0.0
    for j in range(max(bids, asks)):
        below += bid_size[row, j] if (j < bids) & (bid[j] <= NEAR) else 0.0
        above += ask_size[row, j] if (j < asks) & (ask[j] <= NEAR) else 0.0
    return below + above


@kernel
def depth_bands(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels,
    bid_levels: Ints, ask_levels: Ints, start: Int, edges: Floats, out: Block,
) -> None:  # fmt: skip
    """Reach of both sides (bps), depth within 5 bps (lots), then bid size, ask size and imbalance of every band
    (edges[j], edges[j + 1]], d = 0 in the first. k = 3 + 3 (e - 1). A band that a side does not reach is NaN.
    """
    bands, depth = edges.shape[0] - 1, bid_price.shape[1]
    bid, ask, below, above = np.empty(bands), np.empty(bands), np.empty(depth), np.empty(depth)
    for i in range(start, bid_price.shape[0]):
        o = i - start
        mid = (bid_price[i, 0] + ask_price[i, 0]) / 2.0
        fill_distances(bid_price, i, mid, below)
        fill_distances(ask_price, i, mid, above)
        out[0, o] = sum_bands(below, bid_size, i, bid_levels[i], edges, bid)
        out[1, o] = sum_bands(above, ask_size, i, ask_levels[i], edges, ask)
        out[2, o] = sum_near(below, above, bid_size, ask_size, i, bid_levels[i], ask_levels[i])
        for j in range(bands):
            out[3 + 3 * j, o] = bid[j]
            out[4 + 3 * j, o] = ask[j]
            out[5 + 3 * j, o] = ratio(bid[j] - ask[j], bid[j] + ask[j])


@helper
def vwap_levels(price, size, row, count):
    """sum(price * size) / sum(size) over the first ``count`` levels."""
    value, total = 0.0, 0.0
    for j in range(count):
        value += price[row, j] * size[row, j]
        total += size[row, j]
    return value / total


@kernel
def book_vwap(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels,
    bid_levels: Ints, ask_levels: Ints, start: Int, out: Block,
) -> None:  # fmt: skip
    """Size-weighted price of the first 5 levels a side, and their difference. Quote. k = 3."""
    for i in range(start, bid_price.shape[0]):
        bid = vwap_levels(bid_price, bid_size, i, min(bid_levels[i], 5))
        ask = vwap_levels(ask_price, ask_size, i, min(ask_levels[i], 5))
        o = i - start
        out[0, o] = bid
        out[1, o] = ask
        out[2, o] = ask - bid


@helper
def fill_weights(price, row, count, sign, mid, decay_bps, old, kept, new):
    """new (2, l) = the prices of a side and their exp(-d / decay_bps); whether ``old`` had these very prices.

    ``old`` holds those of the row before, ``kept`` of them of this mid: most levels of a feed are in the next snapshot
    as well, and finding one there takes a third of the time of an exponential. Where all are there, ``new`` stays.
    """
    differ = 0 if kept == count else 1
    for j in range(min(kept, count)):
        differ += 0 if old[0, j] == price[row, j] else 1
    if differ == 0:
        return True
    k = 0
    for j in range(count):
        p = price[row, j]
        while k < kept and sign * old[0, k] > sign * p:
            k += 1
        new[0, j] = p
        new[1, j] = old[1, k] if k < kept and old[0, k] == p else math.exp(-distance_bps(p, mid) / decay_bps)
    return False


@helper
def sum_products(size, row, count, weights):
    """sum of size * weight over the levels."""
    total = 0.0
    for j in range(count):
        total += size[row, j] * weights[1, j]
    return total


@kernel
def smart_depth(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels,
    bid_levels: Ints, ask_levels: Ints, start: Int, decay_bps: Float, out: Block,
) -> None:  # fmt: skip
    """Depth discounted by distance from the mid, sum of size * exp(-d / decay_bps), of bids and asks (lots), and their
    imbalance. k = 3."""
    seen, last = np.empty((2, 2, 2, bid_price.shape[1])), 0.0
    bids, asks, b, a = 0, 0, 0, 0
    for i in range(start, bid_price.shape[0]):
        o = i - start
        mid = (bid_price[i, 0] + ask_price[i, 0]) / 2.0
        if mid != last:
            bids, asks, last = 0, 0, mid
        if not fill_weights(bid_price, i, bid_levels[i], 1.0, mid, decay_bps, seen[0, b], bids, seen[0, 1 - b]):
            b = 1 - b
        if not fill_weights(ask_price, i, ask_levels[i], -1.0, mid, decay_bps, seen[1, a], asks, seen[1, 1 - a]):
            a = 1 - a
        bids, asks = bid_levels[i], ask_levels[i]
        bid = sum_products(bid_size, i, bids, seen[0, b])
        ask = sum_products(ask_size, i, asks, seen[1, a])
        out[0, o] = bid
        out[1, o] = ask
        out[2, o] = ratio(bid - ask, bid + ask)


@helper
def simple_slope(price, size, row, count):
    """abs(price_0 - price_4) / (size of the first 5 levels), NaN with fewer than 5."""
    if count < 5:
        return math.nan
    return abs(price[row, 0] - price[row, 4]) / sum_levels(size, row, 5)


@helper
def regression_slopes(bid, ask, bid_size, ask_size, row, bids, asks):
    """Least-squares slopes of cumulative size on d of both sides, in lots a bps; NaN with fewer than 3 levels.

    ``bid`` and ``ask``: d of the levels. Two passes about the means: the one-pass form sum(xy) - n mean(x) mean(y)
    cancels on tight books. Both sides in one loop, since each sum waits for its last addition; levels that one side
    does not have add 0, which changes no sum.
    """
    bid_x, bid_y, ask_x, ask_y, below, above = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(max(bids, asks)):
        below += bid_size[row, j] if j < bids else 0.0
        above += ask_size[row, j] if j < asks else 0.0
        bid_x += bid[j] if j < bids else 0.0
        ask_x += ask[j] if j < asks else 0.0
        bid_y += below if j < bids else 0.0
        ask_y += above if j < asks else 0.0
    bid_x, bid_y, ask_x, ask_y = bid_x / bids, bid_y / bids, ask_x / asks, ask_y / asks
    bid_xx, bid_xy, ask_xx, ask_xy, below, above = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(max(bids, asks)):
        below += bid_size[row, j] if j < bids else 0.0
        above += ask_size[row, j] if j < asks else 0.0
        dx = bid[j] - bid_x if j < bids else 0.0
        bid_xx += dx * dx
        bid_xy += dx * (below - bid_y)
        dx = ask[j] - ask_x if j < asks else 0.0
        ask_xx += dx * dx
        ask_xy += dx * (above - ask_y)
    return (
        ratio(bid_xy, bid_xx) if bids >= 3 else math.nan,
        ratio(ask_xy, ask_xx) if asks >= 3 else math.nan,
    )


@kernel
def book_slope(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels,
    bid_levels: Ints, ask_levels: Ints, start: Int, out: Block,
) -> None:  # fmt: skip
    """Simple slopes of bid and ask (quote/lot), then regression slopes of bid and ask (lots/bps). k = 4."""
    below, above = np.empty(bid_price.shape[1]), np.empty(bid_price.shape[1])
    for i in range(start, bid_price.shape[0]):
        mid = (bid_price[i, 0] + ask_price[i, 0]) / 2.0
        o = i - start
        fill_distances(bid_price, i, mid, below)
        fill_distances(ask_price, i, mid, above)
        slopes = regression_slopes(below, above, bid_size, ask_size, i, bid_levels[i], ask_levels[i])
        out[0, o] = simple_slope(bid_price, bid_size, i, bid_levels[i])
        out[1, o] = simple_slope(ask_price, ask_size, i, ask_levels[i])
        out[2, o] = slopes[0]
        out[3, o] = slopes[1]


@kernel
def center_of_gravity(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels,
    bid_levels: Ints, ask_levels: Ints, start: Int, out: Block,
) -> None:  # fmt: skip
    """sum(price * size) / sum(size) of both sides (quote), and its distance from the mid (bps). k = 2.

    The sum is taken of distances from the mid, which is the same number with less rounding.
    """
    for i in range(start, bid_price.shape[0]):
        mid = (bid_price[i, 0] + ask_price[i, 0]) / 2.0
        value, total = 0.0, 0.0
        for j in range(bid_levels[i]):
            value += (bid_price[i, j] - mid) * bid_size[i, j]
            total += bid_size[i, j]
        for j in range(ask_levels[i]):
            value += (ask_price[i, j] - mid) * ask_size[i, j]
            total += ask_size[i, j]
        out[0, i - start] = mid + value / total
        out[1, i - start] = 1e4 * (value / total) / mid


@helper
def concentrations(bid_size, ask_size, row, bids, asks):
    """sum of (size / total)^2 of both sides: Herfindahl, 1 where one level holds everything. In one loop, as above."""
    below, above = 0.0, 0.0
    for j in range(max(bids, asks)):
        below += bid_size[row, j] if j < bids else 0.0
        above += ask_size[row, j] if j < asks else 0.0
    bid, ask = 0.0, 0.0
    for j in range(max(bids, asks)):
        share = bid_size[row, j] / below if j < bids else 0.0
        bid += share * share
        share = ask_size[row, j] / above if j < asks else 0.0
        ask += share * share
    return bid, ask


@kernel
def book_shape(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels,
    bid_levels: Ints, ask_levels: Ints, start: Int, out: Block,
) -> None:  # fmt: skip
    """size_4 / size_0 of bid and ask and their mean (NaN with fewer than 5 levels), concentration of bid and
    ask, spread / (first 3, 6 sizes of both sides) in quote/lot. k = 7."""
    for i in range(start, bid_price.shape[0]):
        o = i - start
        bid = bid_size[i, 4] / bid_size[i, 0] if bid_levels[i] >= 5 else math.nan
        ask = ask_size[i, 4] / ask_size[i, 0] if ask_levels[i] >= 5 else math.nan
        out[0, o] = bid
        out[1, o] = ask
        out[2, o] = (bid + ask) / 2.0
        shares = concentrations(bid_size, ask_size, i, bid_levels[i], ask_levels[i])
        out[3, o] = shares[0]
        out[4, o] = shares[1]
        spread = ask_price[i, 0] - bid_price[i, 0]
        for j in range(2):
            c = 3 + 3 * j
            depth = sum_levels(bid_size, i, min(c, bid_levels[i])) + sum_levels(ask_size, i, min(c, ask_levels[i]))
            out[5 + j, o] = spread / depth
