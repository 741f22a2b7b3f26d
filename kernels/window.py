"""Windows (t - h, t] that do not drift (FEATURES.md section 1 "Windows", 3.4; DESIGN.md).

Adding what enters and subtracting what leaves accumulates error and makes a value depend on where the
run began. Here time is cut into blocks of h / 8 aligned to the epoch, and a window is always

    suffix of the oldest, partly covered block    summed from the block's end backwards
  + the 7 full blocks between                     combined anew whenever a block begins
  + the current block up to this row              summed forwards from the block's start

without any subtraction: amortised O(1) a row, and the bits depend only on the rows inside the window.
The history before ``start`` must hold every row with capture_ts > capture_ts[start] - h; older rows are
harmless. NaN inputs are left out.

Tried and rejected: a running sum with Neumaier compensation (drifts less, but still depends on the start);
two stacks (exact shape, but their flip depends on the start). Guarded by tests/test_properties.py.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, helper, kernel

SUM, MEAN, ROOT_OF_SQUARES = range(3)
BLOCKS = 8


@helper
def first_after(capture_ts, time):
    """The first row with capture_ts > time (capture_ts ascends)."""
    low, high = 0, capture_ts.shape[0]
    while low < high:
        middle = (low + high) // 2
        if capture_ts[middle] > time:
            high = middle
        else:
            low = middle + 1
    return low


@helper
def clear_skipped(ring, last, now):
    """Empty the ring's slots of blocks last + 1 .. now."""
    for b in range(max(last + 1, now - BLOCKS + 1), now + 1):
        ring[b % BLOCKS] = 0.0


@helper
def sum_between(ring, now):
    """The full blocks now - 7 .. now - 1, oldest first."""
    total = 0.0
    for b in range(now - BLOCKS + 1, now):
        total += ring[b % BLOCKS]
    return total


@helper
def value_of(x, square):
    """What a row adds: 0 for NaN."""
    if math.isnan(x):
        return 0.0
    return x * x if square else x


@helper
def fill_suffix(capture_ts, x, square, begin, block_end, suffix):
    """suffix[j] = x[j] + ... + the last row before ``block_end``, added from the end; returns that end row."""
    end = begin
    while end < x.shape[0] and capture_ts[end] < block_end:
        end += 1
    total = 0.0
    for j in range(end - 1, begin - 1, -1):
        total += value_of(x[j], square)
        suffix[j] = total
    return end


@helper
def sum_window(capture_ts, x, start, width, kind, suffix, out):
    """One window of ``width`` microseconds over one column; out (rows from ``start`` on)."""
    n, block, square = x.shape[0], width // BLOCKS, kind == ROOT_OF_SQUARES
    ring = np.zeros(BLOCKS)
    now = capture_ts[start] // block
    first = first_after(capture_ts, (now - BLOCKS + 1) * block - 1)
    low = first_after(capture_ts, capture_ts[start] - width)
    count = 0
    for j in range(low, start):
        count += 0 if math.isnan(x[j]) else 1
    now = capture_ts[first] // block
    between, oldest_end = 0.0, low
    for i in range(first, n):
        t = capture_ts[i]
        moved = t >= (now + 1) * block
        if moved:
            clear_skipped(ring, now, t // block)
            now = t // block
        ring[now % BLOCKS] += value_of(x[i], square)
        if i < start:
            continue
        while capture_ts[low] <= t - width:
            count -= 0 if math.isnan(x[low]) else 1
            low += 1
        count += 0 if math.isnan(x[i]) else 1
        if moved or i == start:
            between = sum_between(ring, now)
            oldest_end = fill_suffix(capture_ts, x, square, low, (now - BLOCKS + 1) * block, suffix)
        oldest = suffix[low] if low < oldest_end else 0.0
        total = (oldest + between) + ring[now % BLOCKS]
        if count == 0:
            total = math.nan
        elif kind == MEAN:
            total /= count
        elif kind == ROOT_OF_SQUARES:
            total = math.sqrt(total)
        out[i - start] = total


@kernel
def sum_windows(capture_ts: Ints, x: Floats, start: Int, widths: Ints, kind: Int, out: Block) -> None:
    """Sum, mean or root of the sum of squares of ``x`` over the windows ``widths`` (microseconds, multiples of 8).

    n rows, ``out`` (w, n - start); NaN where a window holds no value. Accuracy: 1e-12 of the sum of magnitudes.
    Plain form: out[h, i] = sum(x[j] for j <= i if capture_ts[j] > capture_ts[i] - widths[h]).
    """
    suffix = np.empty(x.shape[0])
    for h in range(widths.shape[0]):
        sum_window(capture_ts, x, start, widths[h], kind, suffix, out[h])


@helper
def merge(n, mean, m2, n_b, mean_b, m2_b):
    """(count, mean, M2) of two disjoint sets together (Chan, Golub, LeVeque 1983, eq. 2.1)."""
    if n == 0:
        return n_b, mean_b, m2_b
    if n_b == 0:
        return n, mean, m2
    total = n + n_b
    delta = mean_b - mean
    return total, mean + delta * (n_b / total), m2 + m2_b + delta * delta * (n * (n_b / total))


@helper
def add_moment(moments, slot, x):
    """Fold one value into the (count, mean, M2) of a slot (Welford 1962); NaN is left out."""
    if math.isnan(x):
        return
    n = moments[slot, 0] + 1.0
    delta = x - moments[slot, 1]
    mean = moments[slot, 1] + delta / n
    moments[slot, 0], moments[slot, 1] = n, mean
    moments[slot, 2] += delta * (x - mean)


@helper
def clear_moments(ring, last, now):
    """Empty the ring's slots of blocks last + 1 .. now."""
    for b in range(max(last + 1, now - BLOCKS + 1), now + 1):
        ring[b % BLOCKS, :] = 0.0


@helper
def merge_between(ring, now):
    """The (count, mean, M2) of full blocks now - 7 .. now - 1, oldest first."""
    n, mean, m2 = 0.0, 0.0, 0.0
    for b in range(now - BLOCKS + 1, now):
        s = b % BLOCKS
        n, mean, m2 = merge(n, mean, m2, ring[s, 0], ring[s, 1], ring[s, 2])
    return n, mean, m2


@helper
def fill_suffix_moments(capture_ts, x, begin, block_end, suffix):
    """suffix[j] = moments of rows j .. the last before ``block_end``, added from the end; returns that end row."""
    end = begin
    while end < x.shape[0] and capture_ts[end] < block_end:
        end += 1
    for j in range(end - 1, begin - 1, -1):
        if j == end - 1:
            suffix[j, :] = 0.0
        else:
            suffix[j, :] = suffix[j + 1, :]
        add_moment(suffix, j, x[j])
    return end


@kernel
def moment_window(capture_ts: Ints, x: Floats, start: Int, width: Int, mean_row: Int, std_row: Int, out: Block) -> None:
    """Mean and sample standard deviation of ``x`` over one window of ``width`` microseconds.

    ``out[mean_row]`` and ``out[std_row]`` (k, n - start) are filled, -1 leaves one out; the mean is NaN without a
    value, the deviation with fewer than 2. The shape of ``sum_windows`` with a merge of (count, mean, M2) in
    place of a sum. Variance to 1e-9 relative.
    """
    n, block = x.shape[0], width // BLOCKS
    suffix, ring = np.empty((n, 3)), np.zeros((BLOCKS, 3))
    now = capture_ts[start] // block
    first = first_after(capture_ts, (now - BLOCKS + 1) * block - 1)
    low = first_after(capture_ts, capture_ts[start] - width)
    now = capture_ts[first] // block
    c, m, v = 0.0, 0.0, 0.0
    oldest_end = low
    for i in range(first, n):
        t = capture_ts[i]
        moved = t >= (now + 1) * block
        if moved:
            clear_moments(ring, now, t // block)
            now = t // block
        s = now % BLOCKS
        add_moment(ring, s, x[i])
        if i < start:
            continue
        while capture_ts[low] <= t - width:
            low += 1
        if moved or i == start:
            c, m, v = merge_between(ring, now)
            oldest_end = fill_suffix_moments(capture_ts, x, low, (now - BLOCKS + 1) * block, suffix)
        count, mean, m2 = c, m, v
        if low < oldest_end:
            count, mean, m2 = merge(suffix[low, 0], suffix[low, 1], suffix[low, 2], c, m, v)
        count, mean, m2 = merge(count, mean, m2, ring[s, 0], ring[s, 1], ring[s, 2])
        if mean_row >= 0:
            out[mean_row, i - start] = mean if count >= 1.0 else math.nan
        if std_row >= 0:
            out[std_row, i - start] = math.sqrt(m2 / (count - 1.0)) if count >= 2.0 else math.nan
