"""The kernels of ``structure.py`` that read all levels, in one call."""

import numpy as np

from tickstate.kernels._jit import Block, Float, Floats, Int, Ints, Levels, kernel
from tickstate.kernels.structure import (
    book_shape,
    book_slope,
    book_vwap,
    center_of_gravity,
    depth_bands,
    depth_imbalance,
    smart_depth,
)

TOGETHER = 512
"""Rows of which all levels and all columns stay in the cache of the core while ``whole_book`` is at them."""


@kernel
def whole_book(
    bid_size: Levels, ask_size: Levels, bid_price: Levels, ask_price: Levels, bid_levels: Ints, ask_levels: Ints,
    start: Int, counts: Ints, edges: Floats, decay_bps: Float, out: Block,
) -> None:  # fmt: skip
    """depth_imbalance, depth_bands, book_vwap, smart_depth, book_slope, center_of_gravity, book_shape, in this order,
    a few rows after the other: the levels come from memory once instead of seven times.
    """
    bands = counts.shape[0] + 3
    vwap = bands + 3 * edges.shape[0]
    for o in range(0, out.shape[1], TOGETHER):
        end, i = min(o + TOGETHER, out.shape[1]), start + o
        part = np.empty((out.shape[0], end - o))
        depth_imbalance(bid_size, ask_size, i, counts, part[:bands])
        depth_bands(bid_price, bid_size, ask_price, ask_size, i, edges, part[bands:vwap])
        book_vwap(bid_price, bid_size, ask_price, ask_size, i, part[vwap : vwap + 3])
        smart_depth(bid_price, bid_size, ask_price, ask_size, i, decay_bps, part[vwap + 3 : vwap + 6])
        book_slope(
            bid_price, bid_size, ask_price, ask_size, bid_levels, ask_levels, i, part[vwap + 6 : vwap + 10]
        )  # fmt: skip
        center_of_gravity(bid_price, bid_size, ask_price, ask_size, i, part[vwap + 10 : vwap + 12])
        book_shape(bid_price, bid_size, ask_price, ask_size, i, part[vwap + 12 :])
        for j in range(out.shape[0]):
            out[j, o:end] = part[j]
