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

What the blocks hold is kept from call to call (``SUMS``, ``MOMENTS``), so that a call costs its own rows however many
lie in the window behind them; zeros there mean that nothing is known, and the blocks are summed from the history.

Tried and rejected: a running sum with Neumaier compensation (drifts less, but still depends on the start);
two stacks (exact shape, but their flip depends on the start). Guarded by tests/test_properties.py. Where windows begin
is found once for all columns that are summed together, by a merge without a branch: a loop that walks on while rows
leave is mispredicted at every second row, 7.4 ns a row and window against 5.5, where the sum itself takes 3.8.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, State, helper, kernel

SUM, MEAN, ROOT_OF_SQUARES, SUM_OF_SQUARES, RAW = range(5)  # RAW: 0 without a value, and counts
BLOCKS = 8  # a power of two: a slot of the ring is b & LAST, never b % BLOCKS
LAST = BLOCKS - 1
BEFORE_ALL = -(1 << 62)  # before any time in microseconds, and no block of any

SUMS = np.dtype([("known", "i8"), ("last", "i8"), ("held", "i8", (8,)), ("ring", "f8", (8,)), ("rows", "i8", (8,))])
"""Of one column and window: whether anything is known; the last query's time (us); blocks' numbers, sums, counts."""

MOMENTS = np.dtype([("known", "i8"), ("held", "i8", (8,)), ("ring", "f8", (8, 4))])
"""The same with moments: count, reference, mean - reference, M2."""


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
def block_end_row(event_ts, begin, time):
    """The first event from ``begin`` on with event_ts >= time."""
    end = begin
    while end < event_ts.shape[0] and event_ts[end] < time:
        end += 1
    return end


@helper
def find_edges(event_ts, query_ts, query_end, width, out):
    """out[q] = the first event of query q's window, query_end[q] where it has none. Ascending times, one merge."""
    low, q, n = first_after(event_ts, query_ts[0] - width), 0, query_ts.shape[0]
    if event_ts.shape[0] == 0:
        out[:] = 0
        return
    last = event_ts.shape[0] - 1
    while q < n:
        out[q] = low
        gone = 1 if low < query_end[q] and event_ts[min(low, last)] <= query_ts[q] - width else 0
        low += gone
        q += 1 - gone


@helper
def open_block(carry, b):
    """The ring's slot of block ``b``, emptied where it held an older one."""
    s = b & LAST
    if carry["held"][s] != b:
        carry["held"][s], carry["ring"][s], carry["rows"][s] = b, 0.0, 0
    return s


@helper
def fold_blocks(event_ts, x, square, i, end, time, carry):
    """Add the events i .. end that lie before ``time`` to their blocks; returns the first that does not."""
    block = time[1]
    while i < end and event_ts[i] < time[0]:
        b = event_ts[i] // block
        s, stop = open_block(carry, b), (b + 1) * block
        total, rows = carry["ring"][s], carry["rows"][s]
        while i < end and event_ts[i] < stop:
            if not math.isnan(x[i]):
                total += x[i] * x[i] if square else x[i]
                rows += 1
            i += 1
        carry["ring"][s], carry["rows"][s] = total, rows
    return i


@helper
def sum_between(carry, now):
    """Sum and number of values of the full blocks now - 7 .. now - 1, oldest first."""
    total, rows = 0.0, 0
    for b in range(now - LAST, now):
        if carry["held"][b & LAST] == b:
            total += carry["ring"][b & LAST]
            rows += carry["rows"][b & LAST]
    return total, rows


@helper
def fill_suffix(x, square, begin, end, suffix, below):
    """suffix[j - begin], below[j - begin] = sum and number of the values of the events j .. end, added from the end."""
    total, rows = 0.0, 0
    suffix[end - begin], below[end - begin] = 0.0, 0
    for j in range(end - 1, begin - 1, -1):
        if not math.isnan(x[j]):
            total += x[j] * x[j] if square else x[j]
            rows += 1
        suffix[j - begin], below[j - begin] = total, rows


@helper
def fold_sums(event_ts, x, kind, i, query_ts, query_end, edges, width, carry, suffix, below, out, counts):
    """What ``kind`` makes of one window of ``width`` microseconds, for each query; ``counts`` of its values for RAW.

    ``edges`` as ``find_edges``; ``i``: the first event that ``carry`` does not hold yet, where anything is known.
    """
    block, square = width // BLOCKS, kind in (ROOT_OF_SQUARES, SUM_OF_SQUARES)
    if carry["known"] == 0:
        carry["held"][:] = BEFORE_ALL
        i = first_after(event_ts, (query_ts[0] // block - LAST) * block - 1)
    q, n = 0, query_ts.shape[0]
    while q < n:
        now = query_ts[q] // block
        until = (now + 1) * block
        i = fold_blocks(event_ts, x, square, i, query_end[q], (now * block, block), carry)
        between, rows_between = sum_between(carry, now)
        first = edges[q]
        fill_suffix(x, square, first, block_end_row(event_ts, first, (now - LAST) * block), suffix, below)
        s = open_block(carry, now)
        total, rows = carry["ring"][s], carry["rows"][s]
        while q < n and query_ts[q] < until:
            while i < query_end[q]:
                if not math.isnan(x[i]):
                    total += x[i] * x[i] if square else x[i]
                    rows += 1
                i += 1
            k = edges[q] - first
            value, count = (suffix[k] + between) + total, below[k] + rows_between + rows
            if kind == RAW:
                counts[q] = count
            elif count == 0:
                value = math.nan
            elif kind == MEAN:
                value /= count
            elif kind == ROOT_OF_SQUARES:
                value = math.sqrt(value)
            out[q] = value
            q += 1
        carry["ring"][s], carry["rows"][s] = total, rows
    carry["known"], carry["last"] = 1, query_ts[n - 1]


@kernel
def sum_windows(
    capture_ts: Ints, x: Floats, second: Floats, third: Floats, fourth: Floats, start: Int, memory: State(SUMS),
    widths: Ints, kinds: Ints, out: Block,
) -> None:  # fmt: skip
    """Fold up to four columns over the windows ``widths`` (microseconds, multiples of 8) that end at their own rows.

    ``kinds`` (c), one a column: SUM, MEAN, ROOT_OF_SQUARES (of the sum of squares) or SUM_OF_SQUARES; columns from c
    on are not read. n rows, ``memory`` and ``out`` (c w, n - start), column by column; NaN where a window holds no
    value. Accuracy: 1e-12 of the sum of magnitudes.
    Plain form: out[h, i] = sum(x[j] for j <= i if capture_ts[j] > capture_ts[i] - widths[h]).
    """
    n, w, columns = x.shape[0], widths.shape[0], (x, second, third, fourth)
    suffix, below, ends = np.empty(n + 1), np.empty(n + 1, np.int64), own_ends(start, n)
    edges, rows = np.empty(n - start, np.int64), capture_ts[start:]
    for h in range(w):
        find_edges(capture_ts, rows, ends, widths[h], edges)
        for c in range(kinds.shape[0]):
            j = c * w + h
            fold_sums(
                capture_ts, columns[c], kinds[c], start, rows, ends, edges, widths[h], memory[j], suffix, below,
                out[j], ends,
            )  # fmt: skip


@kernel
def ratio_windows(
    capture_ts: Ints, x: Floats, y: Floats, start: Int, memory: State(SUMS), widths: Ints, out: Block
) -> None:  # fmt: skip
    """sum of ``x`` / sum of ``y`` over windows at their own rows, as ``sum_windows``; NaN where the latter is 0.

    ``memory`` (2 w).
    """
    n, w, rows = x.shape[0], widths.shape[0], capture_ts[start:]
    suffix, below, ends = np.empty(n + 1), np.empty(n + 1, np.int64), own_ends(start, n)
    counts, edges, total = np.empty(n - start, np.int64), np.empty(n - start, np.int64), np.empty(n - start)
    for h in range(w):
        find_edges(capture_ts, rows, ends, widths[h], edges)
        above, under = memory[h], memory[w + h]
        fold_sums(
            capture_ts, x, RAW, start, rows, ends, edges, widths[h], above, suffix, below, out[h], counts
        )  # fmt: skip
        fold_sums(capture_ts, y, RAW, start, rows, ends, edges, widths[h], under, suffix, below, total, counts)
        for q in range(n - start):
            out[h, q] = out[h, q] / total[q] if total[q] != 0.0 else math.nan


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
def fold_moments(capture_ts, x, start, carry, width, mean_row, std_row, out):
    """The shape of ``fold_sums`` with a merge of moments in place of a sum, at the events themselves."""
    n, block = x.shape[0], width // BLOCKS
    suffix, ring, held = np.empty((n, 4)), carry["ring"], carry["held"]
    first = start
    if carry["known"] == 0:
        held[:] = BEFORE_ALL
        first = first_after(capture_ts, (capture_ts[start] // block - LAST) * block - 1)
    low = first_after(capture_ts, capture_ts[start] - width)
    c, r, m, v, until, now, oldest_end = 0.0, 0.0, 0.0, 0.0, BEFORE_ALL, 0, low
    for i in range(first, n):
        t = capture_ts[i]
        moved = t >= until
        if moved:
            now = t // block
            until = (now + 1) * block
            if held[now & LAST] != now:
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
    carry["known"] = 1


@kernel
def moment_window(
    capture_ts: Ints, x: Floats, start: Int, memory: State(MOMENTS), width: Int, mean_row: Int, std_row: Int, out: Block
) -> None:  # fmt: skip
    """Mean and sample standard deviation of ``x`` over one window of ``width`` microseconds at its own rows.

    ``out[mean_row]`` and ``out[std_row]`` (k, n - start) are filled, -1 leaves one out; the mean is NaN without a
    value, the deviation with fewer than 2. NaN values are left out. Variance to 1e-9 relative.
    """
    fold_moments(capture_ts, x, start, memory[0], width, mean_row, std_row, out)


@kernel
def moment_windows(
    capture_ts: Ints, x: Floats, start: Int, memory: State(MOMENTS), widths: Ints, out: Block
) -> None:  # fmt: skip
    """Mean and sample standard deviation of ``x`` over each of ``widths``, as ``moment_window``. k = 2 w."""
    for h in range(widths.shape[0]):
        fold_moments(capture_ts, x, start, memory[h], widths[h], 2 * h, 2 * h + 1, out)
