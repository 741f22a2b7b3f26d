"""exp over an array, as SIMD and with the same bits on every machine: a library's exp is neither.

Cody and Waite's reduction exp(x) = 2^k exp(x - k ln 2), with ln 2 in two parts (Muller 2016, "Elementary functions",
section 11.2), and a Taylor polynomial on |r| <= ln(2) / 2, whose first term left out is below 5e-18.
"""

import numpy as np

from tickstate.kernels._jit import helper

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = (
    0.693147180369123816490,
    1.90821492927058770002e-10,
)  # the first ends in 20 zero bits: k * it is exact
ROUND = (
    6755399441055744.0  # 1.5 * 2^52: what is added to it is rounded to a whole number, which its last bits then hold
)
ROUND_BITS = np.int64(0x4338000000000000)
LEAST = -708.0  # below it exp would be subnormal


@helper
def exp_polynomial(r):
    """exp(r), abs(r) <= ln(2) / 2: terms up to r^13 / 13!, in groups that do not wait for each other (Estrin's scheme,
    Muller 2016, section 5.3.2): one term after the other (Horner's) took a tenth longer, and was less exact."""
    r2 = r * r
    low = (0.5 + r * (1.0 / 6.0)) + (1.0 / 24.0 + r * (1.0 / 120.0)) * r2
    middle = (1.0 / 720.0 + r * (1.0 / 5040.0)) + (1.0 / 40320.0 + r * (1.0 / 362880.0)) * r2
    high = (1.0 / 3628800.0 + r * (1.0 / 39916800.0)) + (1.0 / 479001600.0 + r * (1.0 / 6227020800.0)) * r2
    r4 = r2 * r2
    return 1.0 + (r + r2 * (low + r4 * (middle + r4 * high)))


@helper
def fill_exponentials(x, out):
    """out = exp(x) for x <= 0 (n), to 1 unit in the last place; 0 below -708 and for NaN. ``x`` is overwritten."""
    bits = out.view(np.int64)
    for r in range(x.shape[0]):
        least = x[r] if x[r] >= LEAST else LEAST
        k = least * LOG2_E + ROUND
        out[r] = k
        k -= ROUND
        power = exp_polynomial((least - k * LN2_HIGH) - k * LN2_LOW)
        x[r] = power if x[r] >= LEAST else 0.0
    for r in range(x.shape[0]):
        bits[r] = (bits[r] - ROUND_BITS + 1023) << 52  # the double 2^k
    for r in range(x.shape[0]):
        out[r] = out[r] * x[r]
