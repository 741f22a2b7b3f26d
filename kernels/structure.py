"""Kernels of FEATURES.md section 3.2: functions of one snapshot alone.

Arrays: ``bid_price``, ``bid_size``, ``ask_price``, ``ask_size`` (l, n), best level first, NaN where absent;
``bid_levels``, ``ask_levels`` (n), the numbers of levels present, at most l. Every row is a valid snapshot.

A kernel goes through its rows in blocks of ``ROWS`` and through the levels of a block one by one, so that every inner
loop runs over neighbouring rows of one level: as SIMD, with each row's sums added in the order of its levels. An
absent level adds 0, which changes no sum. Row by row and level by level the same took three times as long. A loop that
writes more than two arrays is none that the compiler makes SIMD of: it would have to prove too many of them apart.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Float, Floats, Int, Ints, Levels, helper, kernel
from tickstate.kernels.exponential import fill_exponentials

NEAR = 5.0
"""Distance from the mid up to which depth counts as near, in bps."""
ROWS = 256
"""Rows of a block: what a kernel keeps of them stays in the cache of the core."""


@helper
def ratio(x, y):
    """x / y, or NaN where y is 0."""
    return x / y if y != 0.0 else math.nan


@helper
def distance_bps(price, mid):
    """d(p) of FEATURES.md section 1, "Literal arithmetic": the bps distance of a price from the mid."""
    return (1e4 * abs(price - mid)) / mid


@helper
def fill_mids(bid, ask, out):
    """out = the mids of touch prices."""
    for r in range(out.shape[0]):
        out[r] = (bid[r] + ask[r]) / 2.0


@helper
def fill_distances(price, mid, out):
    """out = d of one level's prices, NaN where it is absent."""
    for r in range(out.shape[0]):
        out[r] = distance_bps(price[r], mid[r])


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


@helper
def fill_imbalance(bid, ask, out):
    """out = (bid - ask) / (bid + ask), NaN where that is 0 / 0."""
    for r in range(out.shape[0]):
        out[r] = ratio(bid[r] - ask[r], bid[r] + ask[r])


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


@kernel
def depth_imbalance(bid_size: Levels, ask_size: Levels, start: Int, counts: Ints, out: Block) -> None:
    """(B - A) / (B + A) over the first ``counts[j]`` levels a side (rows 0 .. c of out; ``counts`` ascend), then B, A
    and the imbalance over all present levels. Lots, lots, 1. k = c + 3."""
    c, depth = counts.shape[0], bid_size.shape[0]
    for o in range(0, out.shape[1], ROWS):
        end = min(o + ROWS, out.shape[1])
        bid, ask = out[c, o:end], out[c + 1, o:end]
        bid[:] = 0.0
        ask[:] = 0.0
        k = 0
        for j in range(depth):
            add_present(bid_size[j, start + o : start + end], bid)
            add_present(ask_size[j, start + o : start + end], ask)
            while k < c and (counts[k] == j + 1 or j + 1 == depth):
                fill_imbalance(bid, ask, out[k, o:end])
                k += 1
        fill_imbalance(bid, ask, out[c + 2, o:end])


@helper
def keep_last(distance, reach):
    """reach = d of the deepest level so far."""
    for r in range(reach.shape[0]):
        reach[r] = distance[r] if distance[r] == distance[r] else reach[r]


@helper
def add_between(distance, size, low, high, total):
    """Add the sizes of one level with low < d <= high to ``total``."""
    for r in range(total.shape[0]):
        total[r] += size[r] if (distance[r] > low) & (distance[r] <= high) else 0.0


@helper
def extent(bits):
    """The least and the greatest of ``bits``: those of doubles that are not negative are in the doubles' order.

    As integers they are found with SIMD; minima of doubles are not, because of NaN. NaN counts as the greatest.
    """
    low, high = bits[0], bits[0]
    for r in range(bits.shape[0]):
        low, high = min(low, bits[r]), max(high, bits[r])
    return low, high


@helper
def sum_bands(price, size, begin, mid, edges, distance, bands, reach, near):
    """One side of a block: the sizes in ``bands`` (b, ROWS), ``near`` = those with d <= NEAR, ``reach`` = d of the
    deepest level. A band that no row of the block has a size of some level in costs nothing there.
    """
    n = mid.shape[0]
    bits, limits = distance.view(np.int64), edges.view(np.int64)
    bands[:] = 0.0
    reach[:] = math.nan
    near[:] = 0.0
    for j in range(price.shape[0]):
        sizes = size[j, begin : begin + n]
        fill_distances(price[j, begin : begin + n], mid, distance)
        keep_last(distance, reach)
        add_between(distance, sizes, -1.0, NEAR, near)
        low, high = extent(bits)
        for band in range(bands.shape[0]):
            if low <= limits[band + 1] and limits[band] <= high:
                from_mid = edges[band] if edges[band] > 0.0 else -1.0  # d = 0 is in a band that begins at 0
                add_between(distance, sizes, from_mid, edges[band + 1], bands[band, :n])


@helper
def put_band(bands, edge, reach, out):
    """out = one side's sizes in a band that begins at ``edge``, NaN where the side does not reach into it."""
    for r in range(out.shape[0]):
        out[r] = bands[r] if reach[r] > edge else math.nan


@kernel
def depth_bands(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, edges: Floats, out: Block
) -> None:  # fmt: skip
    """Reach of both sides (bps), depth within 5 bps (lots), then bid size, ask size and imbalance of every band
    (edges[j], edges[j + 1]], d = 0 in the first. k = 3 + 3 (e - 1). A band that a side does not reach is NaN.
    """
    count = edges.shape[0] - 1
    bid, ask, room = np.empty((count, ROWS)), np.empty((count, ROWS)), np.empty((3, ROWS))
    for o in range(0, out.shape[1], ROWS):
        end, begin = min(o + ROWS, out.shape[1]), start + o
        mid, distance, lots = room[0, : end - o], room[1, : end - o], room[2, : end - o]
        fill_mids(bid_price[0, begin:], ask_price[0, begin:], mid)
        below, above, near = out[0, o:end], out[1, o:end], out[2, o:end]
        sum_bands(bid_price, bid_size, begin, mid, edges, distance, bid, below, near)
        sum_bands(ask_price, ask_size, begin, mid, edges, distance, ask, above, lots)
        for r in range(end - o):
            near[r] += lots[r]
        for j in range(count):
            bids, asks = out[3 + 3 * j, o:end], out[4 + 3 * j, o:end]
            put_band(bid[j], edges[j], below, bids)
            put_band(ask[j], edges[j], above, asks)
            fill_imbalance(bids, asks, out[5 + 3 * j, o:end])


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


@kernel
def book_vwap(bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block) -> None:
    """Size-weighted price of the first 5 levels a side, and their difference. Quote. k = 3."""
    room = np.empty(ROWS)
    for o in range(0, out.shape[1], ROWS):
        end = min(o + ROWS, out.shape[1])
        bid, ask, difference = out[0, o:end], out[1, o:end], out[2, o:end]
        vwap_levels(bid_price, bid_size, start + o, start + end, room[: end - o], bid)
        vwap_levels(ask_price, ask_size, start + o, start + end, room[: end - o], ask)
        for r in range(end - o):
            difference[r] = ask[r] - bid[r]


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


@kernel
def smart_depth(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, decay_bps: Float, out: Block
) -> None:
    """Depth discounted by distance from the mid, sum of size * exp(-d / decay_bps), of bids and asks (lots), and their
    imbalance. k = 3."""
    room = np.empty((4, ROWS))
    for o in range(0, out.shape[1], ROWS):
        end, begin = min(o + ROWS, out.shape[1]), start + o
        mid, scale = room[2, : end - o], room[3, : end - o]
        bid, ask = out[0, o:end], out[1, o:end]
        fill_mids(bid_price[0, begin:], ask_price[0, begin:], mid)
        for r in range(end - o):
            scale[r] = -1e4 / (mid[r] * decay_bps)  # one division a row, not two a level
        discounted_depth(bid_price, bid_size, begin, mid, scale, room, bid)
        discounted_depth(ask_price, ask_size, begin, mid, scale, room, ask)
        fill_imbalance(bid, ask, out[2, o:end])


@helper
def simple_slopes(price, size, begin, end, out):
    """out = abs(price_0 - price_4) / (size of the first 5 levels), NaN with fewer than 5."""
    if price.shape[0] < 5:
        out[:] = math.nan
        return
    sum_levels(size, begin, end, 5, out)
    first, fifth = price[0, begin:end], price[4, begin:end]
    for r in range(out.shape[0]):
        out[r] = abs(first[r] - fifth[r]) / out[r]  # NaN where the fifth is absent


@helper
def add_centred(distance, size, mean, xx, dx):
    """dx = d - its mean, 0 where the level is absent; add its square to ``xx``."""
    for r in range(dx.shape[0]):
        dx[r] = distance[r] - mean[r] if size[r] == size[r] else 0.0
    for r in range(dx.shape[0]):
        xx[r] += dx[r] * dx[r]


@helper
def add_leaning(dx, depth, mean, xy):
    """Add dx times the cumulative size less its mean."""
    for r in range(xy.shape[0]):
        xy[r] += dx[r] * (depth[r] - mean[r])


@helper
def add_where(x, size, total):
    """Add ``x`` to ``total`` where a level has a size."""
    for r in range(total.shape[0]):
        total[r] += x[r] if size[r] == size[r] else 0.0


@helper
def regression_slopes(price, size, levels, begin, mid, distance, room, out):
    """out = least-squares slopes of cumulative size on d, in lots a bps; NaN with fewer than 3 levels.

    Two passes about the means: the one-pass form sum(xy) - n mean(x) mean(y) cancels on tight books.
    ``distance`` (l, ROWS) and ``room`` (6, ROWS) are overwritten.
    """
    n = mid.shape[0]
    depth, x, y, xx, xy, dx = room[0, :n], room[1, :n], room[2, :n], room[3, :n], room[4, :n], room[5, :n]
    room[:] = 0.0
    for j in range(price.shape[0]):
        sizes = size[j, begin : begin + n]
        fill_distances(price[j, begin : begin + n], mid, distance[j, :n])
        add_present(sizes, depth)
        add_present(distance[j], x)
        add_where(depth, sizes, y)
    for r in range(n):
        x[r] /= levels[r]
    for r in range(n):
        y[r] /= levels[r]
    depth[:] = 0.0
    for j in range(price.shape[0]):
        sizes = size[j, begin : begin + n]
        add_present(sizes, depth)
        add_centred(distance[j], sizes, x, xx, dx)
        add_leaning(dx, depth, y, xy)
    for r in range(n):
        out[r] = ratio(xy[r], xx[r]) if levels[r] >= 3 else math.nan


@kernel
def book_slope(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels,
    bid_levels: Ints, ask_levels: Ints, start: Int, out: Block,
) -> None:  # fmt: skip
    """Simple slopes of bid and ask (quote/lot), then regression slopes of bid and ask (lots/bps). k = 4."""
    distance, room, mids = np.empty((bid_price.shape[0], ROWS)), np.empty((6, ROWS)), np.empty(ROWS)
    for o in range(0, out.shape[1], ROWS):
        end, begin = min(o + ROWS, out.shape[1]), start + o
        mid = mids[: end - o]
        fill_mids(bid_price[0, begin:], ask_price[0, begin:], mid)
        simple_slopes(bid_price, bid_size, begin, start + end, out[0, o:end])
        simple_slopes(ask_price, ask_size, begin, start + end, out[1, o:end])
        regression_slopes(bid_price, bid_size, bid_levels[begin:], begin, mid, distance, room, out[2, o:end])
        regression_slopes(ask_price, ask_size, ask_levels[begin:], begin, mid, distance, room, out[3, o:end])


@helper
def add_leverage(price, size, mid, value, total):
    """Add one level's (price - mid) * size and its size where it is present."""
    for r in range(mid.shape[0]):
        known = size[r] == size[r]
        value[r] += (price[r] - mid[r]) * size[r] if known else 0.0
        total[r] += size[r] if known else 0.0


@kernel
def center_of_gravity(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block
) -> None:
    """sum(price * size) / sum(size) of both sides (quote), and its distance from the mid (bps). k = 2.

    The sum is taken of distances from the mid, which is the same number with less rounding.
    """
    room = np.empty((3, ROWS))
    for o in range(0, out.shape[1], ROWS):
        end = min(o + ROWS, out.shape[1])
        begin, n = start + o, end - o
        mid, value, total = room[0, :n], room[1, :n], room[2, :n]
        fill_mids(bid_price[0, begin:], ask_price[0, begin:], mid)
        value[:] = 0.0
        total[:] = 0.0
        for j in range(bid_price.shape[0]):
            add_leverage(bid_price[j, begin:], bid_size[j, begin:], mid, value, total)
        for j in range(ask_price.shape[0]):
            add_leverage(ask_price[j, begin:], ask_size[j, begin:], mid, value, total)
        center, offset = out[0, o:end], out[1, o:end]
        for r in range(n):
            center[r] = mid[r] + value[r] / total[r]
            offset[r] = 1e4 * (value[r] / total[r]) / mid[r]


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


@kernel
def book_shape(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block
) -> None:
    """size_4 / size_0 of bid and ask and their mean (NaN with fewer than 5 levels), concentration of bid and
    ask, spread / (first 3, 6 sizes of both sides) in quote/lot. k = 7."""
    room = np.empty((2, ROWS))
    for o in range(0, out.shape[1], ROWS):
        end = min(o + ROWS, out.shape[1])
        begin, last, n = start + o, start + end, end - o
        bid, ask, mean = out[0, o:end], out[1, o:end], out[2, o:end]
        fill_quotients(bid_size, begin, last, bid)
        fill_quotients(ask_size, begin, last, ask)
        for r in range(n):
            mean[r] = (bid[r] + ask[r]) / 2.0
        below, above = room[0, :n], room[1, :n]
        concentrations(bid_size, begin, last, below, out[3, o:end])
        concentrations(ask_size, begin, last, above, out[4, o:end])
        bids, asks = bid_price[0, begin:last], ask_price[0, begin:last]
        for j in range(2):
            sum_levels(bid_size, begin, last, 3 + 3 * j, below)
            sum_levels(ask_size, begin, last, 3 + 3 * j, above)
            depth = out[5 + j, o:end]
            for r in range(n):
                depth[r] = (asks[r] - bids[r]) / (below[r] + above[r])
