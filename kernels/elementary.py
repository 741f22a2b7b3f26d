"""exp, log and powers of 2 with the same bits on every machine, right to one unit in the last place.

A C library's differ between its versions and between CPUs with and without fused multiply-add, NumPy's with the
vector width, and numba calls those of Intel's SVML where that is installed. Kernels call these instead: all that they
do is add, multiply and divide doubles. (Reductions and polynomials: Muller 2016, "Elementary functions".)
"""

import math

import numpy as np

from tickstate.kernels._jit import helper

LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453
LN2_HIGH, LN2_LOW = (
    0.693147180369123816490,
    1.90821492927058770002e-10,
)  # the first ends in 20 zero bits: k * it is exact
ROUND = (
    6755399441055744.0  # 1.5 * 2^52: what is added to it is rounded to a whole number, which its last bits then hold
)
ROUND_BITS = np.int64(0x4338000000000000)
LEAST = -708.0  # below it exp would be subnormal
SQRT_HALF, SQRT_2 = 0.7071067811865476, 1.4142135623730951


@helper
def exp_polynomial(r):
    """exp(r), abs(r) <= ln(2) / 2: terms up to r^13 / 13!, what is left out is below 5e-18; in groups that do not wait
    for each other (Estrin's scheme, section 5.3.2): one after the other (Horner's) took a tenth longer, less exact."""
    return 1.0 + (r + r * r * exp_rest(r))


@helper
def exp_rest(r):
    """(exp(r) - 1 - r) / r^2 likewise."""
    r2 = r * r
    low = (0.5 + r * (1.0 / 6.0)) + (1.0 / 24.0 + r * (1.0 / 120.0)) * r2
    middle = (1.0 / 720.0 + r * (1.0 / 5040.0)) + (1.0 / 40320.0 + r * (1.0 / 362880.0)) * r2
    high = (1.0 / 3628800.0 + r * (1.0 / 39916800.0)) + (1.0 / 479001600.0 + r * (1.0 / 6227020800.0)) * r2
    r4 = r2 * r2
    return low + r4 * (middle + r4 * high)


@helper
def fill_exponentials(x, out):
    """out = exp(x) for x <= 0 (n), to 1 unit in the last place; 0 below -708 and for NaN. ``x`` is overwritten.

    exp(x) = 2^k exp(x - k ln 2), with ln 2 in two parts (Cody and Waite's reduction, Muller 2016, section 11.2), all
    rows at a time, as SIMD.
    """
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


@helper
def exp2(x):
    """2^x, to 1 unit in the last place; NaN for NaN."""
    if not x < 1024.0:
        return x if math.isnan(x) else math.inf
    if x < -1075.0:
        return 0.0
    k = math.floor(x + 0.5)
    r = (x - k) * LN2
    high = 1.0 + r
    return math.ldexp(high + (((1.0 - high) + r) + r * r * exp_rest(r)), k)


@helper
def log(x):
    """ln(x), to 1 unit in the last place; -inf for 0, NaN below and for NaN.

    x = 2^k (1 + f), 1 + f between the roots of 1/2 and 2, and ln(1 + f) = 2 artanh(s), s = f / (2 + f): the series up
    to s^21, of which 2 s is written f - s f so that what is rounded is small beside f.
    """
    if not 0.0 < x < math.inf:
        return -math.inf if x == 0.0 else x if x > 0.0 else math.nan
    m, k = x, 0
    if not SQRT_HALF <= x < SQRT_2:
        m, k = math.frexp(x)
        if m < SQRT_HALF:
            m, k = m + m, k - 1
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    z2 = z * z
    low = (2.0 / 3.0 + z * (2.0 / 5.0)) + (2.0 / 7.0 + z * (2.0 / 9.0)) * z2
    middle = (2.0 / 11.0 + z * (2.0 / 13.0)) + (2.0 / 15.0 + z * (2.0 / 17.0)) * z2
    high = 2.0 / 19.0 + z * (2.0 / 21.0)
    z4 = z2 * z2
    rest = z * (low + z4 * (middle + z4 * high))
    half = 0.5 * f * f
    return k * LN2_HIGH - ((half - (s * (half + rest) + k * LN2_LOW)) - f)
