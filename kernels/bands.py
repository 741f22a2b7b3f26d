"""Depth by distance from the mid (FEATURES.md section 3.2). Arrays and blocks as in ``structure.py``."""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Levels, helper, kernel
from tickstate.kernels.blocks import ROWS, fill_imbalance, fill_sides, full_levels

NEAR = 5.0
"""Distance from the mid up to which depth counts as near, in bps."""
NEAR_BITS = np.array([NEAR]).view(np.int64)[0]


@helper
def sum_bands(distance, size, begin, edges, bands, reach, near):
    """One side of a block: the sizes in ``bands`` (b, ROWS), ``near`` = those with d <= NEAR, ``reach`` = d of the
    deepest level. A band that no row of the block has a size of some level in costs nothing there.
    """
    n, full, limits = reach.shape[0], full_levels(distance, 0, reach.shape[0]), edges.view(np.int64)
    bands[:] = 0.0
    near[:] = 0.0
    reach[:] = distance[full - 1, :n]
    for j in range(distance.shape[0]):
        d, sizes = distance[j, :n], size[j, begin:]
        if j >= full:
            for r in range(n):
                reach[r] = d[r] if d[r] == d[r] else reach[r]
        # As integers the extent is found with SIMD; minima of doubles are not, because of NaN. Doubles that are not
        # negative are in the order of their bits, NaN the greatest.
        bits = d.view(np.int64)
        low, high = bits[0], bits[0]
        for r in range(n):
            low, high = min(low, bits[r]), max(high, bits[r])
        for band in range(-1, bands.shape[0]):  # -1: those near the mid
            edge, first = -1.0, -1  # d = 0 is in a band that begins at 0
            if band >= 0 and edges[band] > 0.0:
                edge, first = edges[band], limits[band]
            limit, last = (edges[band + 1], limits[band + 1]) if band >= 0 else (NEAR, NEAR_BITS)
            total = bands[band, :n] if band >= 0 else near
            if first < low and high <= last:  # all of them
                for r in range(n):
                    total[r] += sizes[r]
            elif low <= last and first <= high:
                for r in range(n):
                    total[r] += sizes[r] if (d[r] > edge) & (d[r] <= limit) else 0.0


@helper
def bands_block(below, above, bid_size, ask_size, begin, edges, room, out, o, end):
    """``depth_bands`` of a block. ``room`` (e, ROWS)."""
    count, n = edges.shape[0] - 1, end - o
    bands, lots, near = room[:count], room[count, :n], out[2, o:end]
    for side, (distance, size, total) in enumerate(((below, bid_size, near), (above, ask_size, lots))):
        reach = out[side, o:end]
        sum_bands(distance, size, begin, edges, bands, reach, total)
        for j in range(count):
            found = out[3 + 3 * j + side, o:end]
            for r in range(n):
                found[r] = bands[j, r] if reach[r] > edges[j] else math.nan
    for r in range(n):
        near[r] += lots[r]
    for j in range(count):
        fill_imbalance(out[3 + 3 * j, o:end], out[4 + 3 * j, o:end], out[5 + 3 * j, o:end])


@kernel
def depth_bands(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, edges: Floats, out: Block
) -> None:  # fmt: skip
    """Reach of both sides (bps), depth within 5 bps (lots), then bid size, ask size and imbalance of every band
    (edges[j], edges[j + 1]], d = 0 in the first. k = 3 + 3 (e - 1). A band that a side does not reach is NaN.
    """
    depth, mids, room = bid_price.shape[0], np.empty(ROWS), np.empty((edges.shape[0], ROWS))
    below, above = np.empty((depth, ROWS)), np.empty((depth, ROWS))
    for o in range(0, out.shape[1], ROWS):
        begin, end = start + o, min(o + ROWS, out.shape[1])
        fill_sides(bid_price, ask_price, begin, mids[: end - o], below, above)
        bands_block(below, above, bid_size, ask_size, begin, edges, room, out, o, end)
