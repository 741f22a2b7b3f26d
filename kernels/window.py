"""Windows (t - h, t] that do not drift (FEATURES.md section 1 "Windows", 3.4; DESIGN.md).

Adding what enters and subtracting what leaves accumulates error and makes a value depend on where the
run began. Here time is cut into blocks of h / 8 aligned to the epoch, and a window is always

    suffix of the oldest, partly covered block    summed from the block's end backwards
  + the 7 full blocks between                     combined anew whenever a block begins
  + the current block up to this row              summed forwards from the block's start

without any subtraction: amortised O(1) a row, and the bits depend only on the events inside the window.
Events before the first window are harmless. NaN values are left out.

The events (rows, trades, cells) and the times at which windows are asked for (rows) are separate: query q
at time ``query_ts[q]`` sees the events 0 .. query_end[q]. A window of a column at its own rows is the case
query_end[q] = q + 1.

Tried and rejected: a running sum with Neumaier compensation (drifts less, but still depends on the start);
two stacks (exact shape, but their flip depends on the start). Guarded by tests/test_properties.py.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, helper, kernel

SUM, MEAN, ROOT_OF_SQUARES, SUM_OF_SQUARES = range(4)
BLOCKS = 8  # a power of two: a slot of the ring is b & LAST, never b % BLOCKS
LAST = BLOCKS - 1
BEFORE_ALL = -(1 << 62)  # before any time in microseconds, and no block of any


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
def own_ends(start, n):
    """query_end for windows at the rows ``start`` .. n of the events themselves."""
    return np.arange(start + 1, n + 1)


@helper
def value_of(x, square):
    """What an event adds: 0 for NaN."""
    if math.isnan(x):
        return 0.0
    return x * x if square else x


@helper
def block_end_row(event_ts, begin, time):
    """The first event from ``begin`` on with event_ts >= time."""
    end = begin
    while end < event_ts.shape[0] and event_ts[end] < time:
        end += 1
    return end


@helper
def sum_window(event_ts, x, query_ts, query_end, width, square, suffix, out, counts):
    """Sums (out) and numbers of values (counts) of one window of ``width`` microseconds, for each query."""
    block = width // BLOCKS
    ring, held = np.zeros(BLOCKS), np.full(BLOCKS, BEFORE_ALL)
    i = first_after(event_ts, (query_ts[0] // block - LAST) * block - 1)
    low = first_after(event_ts, query_ts[0] - width)
    counted, count, now, until, slot, slot_end = low, 0, 0, BEFORE_ALL, 0, BEFORE_ALL
    between, oldest_end = 0.0, low
    for q in range(query_ts.shape[0]):
        t, end = query_ts[q], query_end[q]
        while i < end:
            if event_ts[i] >= slot_end:
                b = event_ts[i] // block
                slot, slot_end = b & LAST, (b + 1) * block
                ring[slot], held[slot] = 0.0, b
            ring[slot] += value_of(x[i], square)
            i += 1
        while counted < end:
            count += 0 if math.isnan(x[counted]) else 1
            counted += 1
        while low < end and event_ts[low] <= t - width:
            count -= 0 if math.isnan(x[low]) else 1
            low += 1
        if t >= until:
            now = t // block
            until = (now + 1) * block
            between = 0.0
            for b in range(now - LAST, now):
                between += ring[b & LAST] if held[b & LAST] == b else 0.0
            oldest_end = block_end_row(event_ts, low, (now - LAST) * block)
            total = 0.0
            for j in range(oldest_end - 1, low - 1, -1):
                total += value_of(x[j], square)
                suffix[j] = total
        oldest = suffix[low] if low < oldest_end else 0.0
        current = ring[now & LAST] if held[now & LAST] == now else 0.0
        out[q] = (oldest + between) + current
        counts[q] = count


@kernel
def sum_windows(capture_ts: Ints, x: Floats, start: Int, widths: Ints, kind: Int, out: Block) -> None:
    """Fold ``x`` over the windows ``widths`` (microseconds, multiples of 8) that end at its own rows.

    ``kind``: SUM, MEAN, ROOT_OF_SQUARES (of the sum of squares) or SUM_OF_SQUARES. n rows, ``out`` (w, n - start);
    NaN where a window holds no value. Accuracy: 1e-12 of the sum of magnitudes.
    Plain form: out[h, i] = sum(x[j] for j <= i if capture_ts[j] > capture_ts[i] - widths[h]).
    """
    n = x.shape[0]
    suffix, counts, ends = np.empty(n), np.empty(n - start, np.int64), own_ends(start, n)
    square = kind in (ROOT_OF_SQUARES, SUM_OF_SQUARES)
    for h in range(widths.shape[0]):
        row = out[h]
        sum_window(capture_ts, x, capture_ts[start:], ends, widths[h], square, suffix, row, counts)
        for q in range(n - start):
            if counts[q] == 0:
                row[q] = math.nan
            elif kind == MEAN:
                row[q] /= counts[q]
            elif kind == ROOT_OF_SQUARES:
                row[q] = math.sqrt(row[q])


@kernel
def ratio_windows(capture_ts: Ints, x: Floats, y: Floats, start: Int, widths: Ints, out: Block) -> None:
    """sum of ``x`` / sum of ``y`` over windows at their own rows, as ``sum_windows``; NaN where the latter is 0."""
    n = x.shape[0]
    suffix, counts, ends = np.empty(n), np.empty(n - start, np.int64), own_ends(start, n)
    below = np.empty(n - start)
    for h in range(widths.shape[0]):
        row = out[h]
        sum_window(capture_ts, x, capture_ts[start:], ends, widths[h], False, suffix, row, counts)
        sum_window(capture_ts, y, capture_ts[start:], ends, widths[h], False, suffix, below, counts)
        for q in range(n - start):
            row[q] = row[q] / below[q] if below[q] != 0.0 else math.nan


@kernel
def count_windows(capture_ts: Ints, start: Int, widths: Ints, out: Block) -> None:
    """Number of rows in the windows ``widths`` (microseconds), out (w, n - start)."""
    for h in range(widths.shape[0]):
        low = first_after(capture_ts, capture_ts[start] - widths[h])
        for i in range(start, capture_ts.shape[0]):
            while capture_ts[low] <= capture_ts[i] - widths[h]:
                low += 1
            out[h, i - start] = i + 1 - low


@helper
def merge(n, ref, mean, m2, n_b, ref_b, mean_b, m2_b):
    """(count, reference, mean - reference, M2) of two disjoint sets together (Chan, Golub, LeVeque 1983, eq. 2.1).

    Means are kept as distances from a value of their own set: differences of prices are exact where prices are not.
    """
    if n == 0:
        return n_b, ref_b, mean_b, m2_b
    if n_b == 0:
        return n, ref, mean, m2
    total = n + n_b
    delta = (ref_b - ref) + (mean_b - mean)
    return total, ref, mean + delta * (n_b / total), m2 + m2_b + delta * delta * (n * (n_b / total))


@helper
def add_moment(moments, slot, x):
    """Fold one value into the (count, reference, mean - reference, M2) of a slot (Welford 1962); NaN is left out."""
    if math.isnan(x):
        return
    if moments[slot, 0] == 0.0:
        moments[slot, 1] = x
    n = moments[slot, 0] + 1.0
    y = x - moments[slot, 1]
    delta = y - moments[slot, 2]
    mean = moments[slot, 2] + delta / n
    moments[slot, 0], moments[slot, 2] = n, mean
    moments[slot, 3] += delta * (y - mean)


@helper
def merge_between(ring, held, now):
    """The moments of the full blocks now - 7 .. now - 1, oldest first."""
    n, ref, mean, m2 = 0.0, 0.0, 0.0, 0.0
    for b in range(now - LAST, now):
        s = b & LAST
        if held[s] == b:
            n, ref, mean, m2 = merge(n, ref, mean, m2, ring[s, 0], ring[s, 1], ring[s, 2], ring[s, 3])
    return n, ref, mean, m2


@helper
def fill_suffix_moments(x, begin, end, suffix):
    """suffix[j] = the moments of rows j .. end, added from the end."""
    for j in range(end - 1, begin - 1, -1):
        for c in range(4):
            suffix[j, c] = suffix[j + 1, c] if j + 1 < end else 0.0
        add_moment(suffix, j, x[j])


@helper
def fold_moments(capture_ts, x, start, width, mean_row, std_row, out):
    """The shape of ``sum_window`` with a merge of moments in place of a sum, at the events themselves."""
    n, block = x.shape[0], width // BLOCKS
    suffix, ring, held = np.empty((n, 4)), np.zeros((BLOCKS, 4)), np.full(BLOCKS, BEFORE_ALL)
    first = first_after(capture_ts, (capture_ts[start] // block - LAST) * block - 1)
    low = first_after(capture_ts, capture_ts[start] - width)
    c, r, m, v, until, now, oldest_end = 0.0, 0.0, 0.0, 0.0, BEFORE_ALL, 0, low
    for i in range(first, n):
        t = capture_ts[i]
        moved = t >= until
        if moved:
            now = t // block
            until = (now + 1) * block
            ring[now & LAST, :] = 0.0
            held[now & LAST] = now
        s = now & LAST
        add_moment(ring, s, x[i])
        if i < start:
            continue
        while capture_ts[low] <= t - width:
            low += 1
        if moved or i == start:
            c, r, m, v = merge_between(ring, held, now)
            oldest_end = block_end_row(capture_ts, low, (now - LAST) * block)
            fill_suffix_moments(x, low, oldest_end, suffix)
        count, ref, mean, m2 = c, r, m, v
        if low < oldest_end:
            count, ref, mean, m2 = merge(suffix[low, 0], suffix[low, 1], suffix[low, 2], suffix[low, 3], c, r, m, v)
        count, ref, mean, m2 = merge(count, ref, mean, m2, ring[s, 0], ring[s, 1], ring[s, 2], ring[s, 3])
        if mean_row >= 0:
            out[mean_row, i - start] = ref + mean if count >= 1.0 else math.nan
        if std_row >= 0:
            out[std_row, i - start] = math.sqrt(m2 / (count - 1.0)) if count >= 2.0 else math.nan


@kernel
def moment_window(
    capture_ts: Ints, x: Floats, start: Int, width: Int, mean_row: Int, std_row: Int, out: Block
) -> None:  # fmt: skip
    """Mean and sample standard deviation of ``x`` over one window of ``width`` microseconds at its own rows.

    ``out[mean_row]`` and ``out[std_row]`` (k, n - start) are filled, -1 leaves one out; the mean is NaN without a
    value, the deviation with fewer than 2. NaN values are left out. Variance to 1e-9 relative.
    """
    fold_moments(capture_ts, x, start, width, mean_row, std_row, out)


@kernel
def moment_windows(capture_ts: Ints, x: Floats, start: Int, widths: Ints, out: Block) -> None:
    """Mean and sample standard deviation of ``x`` over each of ``widths``, as ``moment_window``. k = 2 w."""
    for h in range(widths.shape[0]):
        fold_moments(capture_ts, x, start, widths[h], 2 * h, 2 * h + 1, out)
