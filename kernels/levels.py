"""Kernel of FEATURES.md section 3.1: the levels themselves, as columns."""

from tickstate.kernels._jit import Block, Int, Levels, kernel


@kernel
def copy_levels(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block
) -> None:
    """bid price, bid size, ask price, ask size of level 0 .. l - 1 each; NaN where absent. k = 4 l."""
    depth = bid_price.shape[0]
    out[:depth] = bid_price[:, start:]
    out[depth : 2 * depth] = bid_size[:, start:]
    out[2 * depth : 3 * depth] = ask_price[:, start:]
    out[3 * depth :] = ask_size[:, start:]
