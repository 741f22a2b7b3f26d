"""The last pass over a column: one NaN, no -0.0, no infinity, and where the nulls are."""

import math

import numpy as np

from tickstate.kernels._jit import Block, Bytes, Floats, Ints, OutFloats, OutInts, OutMasks, helper, kernel

GATHER = np.uint64(0x0102040810204080)
"""Times eight bytes of 0 or 1: their bits in the highest byte, the first byte's lowest."""


@helper
def normalise(x):
    """Make NaN and infinity the one NaN and -0.0 0.0; returns how many are NaN then. Without a branch: as SIMD."""
    missing = 0
    for j in range(x.shape[0]):
        known = -math.inf < x[j] < math.inf
        x[j] = x[j] + 0.0 if known else math.nan  # -0.0 + 0.0 is 0.0
        missing += 0 if known else 1
    return missing


@helper
def pack_known(x, known, out):
    """out = the bits of the values that are not NaN; ``known`` (8 bytes a byte of ``out``), 0 behind the last value."""
    words = known.view(np.uint64)
    for j in range(x.shape[0]):
        known[j] = 1 if x[j] == x[j] else 0
    for byte in range(out.shape[0]):
        out[byte] = (words[byte] * GATHER) >> np.uint64(56)


@kernel
def finish_columns(values: Block, validity: OutMasks, nulls: OutInts) -> None:
    """Normalise ``values`` (k, n) in place and describe the nulls of each column.

    NaN and infinity become the one NaN and a cleared bit of ``validity`` (k, (n + 7) // 8: Arrow's bit order);
    -0.0 becomes 0.0; ``nulls`` (k) are their numbers.
    """
    n, known = values.shape[1], np.zeros(8 * validity.shape[1], np.uint8)
    for c in range(values.shape[0]):
        nulls[c] = normalise(values[c])
        if nulls[c] > 0:
            pack_known(values[c], known, validity[c])
            continue
        validity[c, :] = 255
        if n % 8:
            validity[c, n // 8] = (1 << n % 8) - 1


@kernel
def whole_numbers(values: Floats, out: OutInts) -> None:
    """The whole numbers ``values`` (n) as integers, 0 for NaN."""
    for i in range(out.shape[0]):
        out[i] = 0 if math.isnan(values[i]) else int(values[i])


@kernel
def spread_rows(values: Floats, flag: Bytes, out: OutFloats) -> None:
    """Put the values of the valid rows (flag 0) back in their places, NaN at the flagged ones."""
    v = 0
    for i in range(flag.shape[0]):
        if flag[i] == 0:
            out[i] = values[v]
            v += 1
        else:
            out[i] = math.nan


@kernel
def latency(capture_ts: Ints, timestamp: Ints, out: OutFloats) -> None:
    """capture_ts (us) - timestamp (ms), in ms; FEATURES.md section 3. Exact where both are times."""
    for i in range(out.shape[0]):
        whole = capture_ts[i] // 1000
        out[i] = float(whole - timestamp[i]) + (capture_ts[i] - 1000 * whole) / 1000.0
