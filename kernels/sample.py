"""Kernel of FEATURES.md section 6: flows summed over the rows of an interval."""

import math

from tickstate.kernels._jit import Floats, Ints, OutFloats, kernel


@kernel
def sum_groups(values: Floats, ends: Ints, carry: OutFloats, out: OutFloats) -> None:
    """Sum the non-null values of consecutive groups, NaN for a group without any.

    Group g is ``values[ends[g - 1] : ends[g]]``; ``out`` (g). ``carry[0]`` is what the first group already holds (NaN:
    nothing); afterwards it holds the sum of the values behind the last group.
    """
    total, begin = carry[0], 0
    for g in range(ends.shape[0] + 1):
        end = ends[g] if g < ends.shape[0] else values.shape[0]
        for i in range(begin, end):
            if not math.isnan(values[i]):
                total = values[i] if math.isnan(total) else total + values[i]
        if g < ends.shape[0]:
            out[g] = total
            total = math.nan
        begin = end
    carry[0] = total
