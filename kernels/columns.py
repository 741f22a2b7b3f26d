"""The last pass over a column: one NaN, no -0.0, no infinity, and where the nulls are."""

import math

from tickstate.kernels._jit import Block, Bytes, Floats, Ints, OutFloats, OutInts, OutMasks, kernel


@kernel
def finish_columns(values: Block, validity: OutMasks, nulls: OutInts) -> None:
    """Normalise ``values`` (k, n) in place and describe the nulls of each column.

    NaN and infinity become the one NaN and a cleared bit of ``validity`` (k, (n + 7) // 8: Arrow's bit order);
    -0.0 becomes 0.0; ``nulls`` (k) are their numbers.
    """
    n = values.shape[1]
    for c in range(values.shape[0]):
        missing = 0
        for j in range(n):  # no branch: it runs as SIMD
            x = values[c, j]
            known = -math.inf < x < math.inf
            values[c, j] = x + 0.0 if known else math.nan  # -0.0 + 0.0 is 0.0
            missing += 0 if known else 1
        nulls[c] = missing
        if missing == 0:
            validity[c, :] = 255
            if n % 8:
                validity[c, n // 8] = (1 << n % 8) - 1
            continue
        for byte in range(validity.shape[1]):
            bits = 0
            for j in range(8 * byte, min(8 * byte + 8, n)):
                bits |= 0 if math.isnan(values[c, j]) else 1 << (j - 8 * byte)
            validity[c, byte] = bits


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
