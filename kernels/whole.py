"""The kernels of one snapshot alone that read many levels, in one call."""

import numpy as np

from tickstate.kernels._jit import Block, Float, Floats, Int, Ints, Levels, kernel
from tickstate.kernels.bands import bands_block
from tickstate.kernels.blocks import ROWS, fill_sides
from tickstate.kernels.slope import slope_block
from tickstate.kernels.structure import gravity_block, imbalance_block, shape_block, smart_block, vwap_block


@kernel
def whole_book(
    bid_size: Levels, ask_size: Levels, bid_price: Levels, ask_price: Levels, bid_levels: Ints, ask_levels: Ints,
    start: Int, counts: Ints, edges: Floats, decay_bps: Float, out: Block,
) -> None:  # fmt: skip
    """depth_imbalance, depth_bands, book_vwap, smart_depth, book_slope, center_of_gravity, book_shape, in this order,
    a block after the other: levels come from memory once instead of seven times, distances are made once.
    """
    depth, bands = bid_price.shape[0], counts.shape[0] + 3
    vwap = bands + 3 * edges.shape[0]
    below, above, mids = np.empty((depth, ROWS)), np.empty((depth, ROWS)), np.empty(ROWS)
    room, sides = np.empty((6, ROWS)), np.empty((edges.shape[0], ROWS))
    found = np.empty((out.shape[0], ROWS))  # columns side by side: in ``out`` they are far apart
    for o in range(0, out.shape[1], ROWS):
        i, n = start + o, min(ROWS, out.shape[1] - o)
        mid = mids[:n]
        fill_sides(bid_price, ask_price, i, mid, below, above)
        imbalance_block(bid_size, ask_size, i, counts, found, 0, n)
        bands_block(below, above, bid_size, ask_size, i, edges, sides, found[bands:], 0, n)
        vwap_block(bid_price, bid_size, ask_price, ask_size, i, room[0], found[vwap:], 0, n)
        smart_block(bid_price, bid_size, ask_price, ask_size, i, mid, decay_bps, room, found[vwap + 3 :], 0, n)
        slope_block(
            below, above, bid_price, bid_size, ask_price, ask_size, bid_levels, ask_levels, i, room,
            found[vwap + 6 :], 0, n,
        )  # fmt: skip
        gravity_block(bid_price, bid_size, ask_price, ask_size, i, mid, room, found[vwap + 10 :], 0, n)
        shape_block(bid_price, bid_size, ask_price, ask_size, i, room, found[vwap + 12 :], 0, n)
        for j in range(out.shape[0]):
            out[j, o : o + n] = found[j, :n]
