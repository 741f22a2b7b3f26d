"""Kernel of FEATURES.md section 3.1: the levels themselves, as columns."""

from tickstate.kernels._jit import Block, Int, Levels, kernel


@kernel
def copy_levels(
    bid_price: Levels, bid_size: Levels, ask_price: Levels, ask_size: Levels, start: Int, out: Block
) -> None:
    """bid price, bid size, ask price, ask size of level 0 .. l - 1 each; NaN where absent. k = 4 l."""
    depth = bid_price.shape[1]
    for i in range(start, bid_price.shape[0]):
        for j in range(depth):
            out[j, i - start] = bid_price[i, j]
            out[depth + j, i - start] = bid_size[i, j]
            out[2 * depth + j, i - start] = ask_price[i, j]
            out[3 * depth + j, i - start] = ask_size[i, j]
