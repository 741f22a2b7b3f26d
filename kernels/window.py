"""Windows (t - h, t] that do not drift (FEATURES.md section 1 "Windows", 3.4; DESIGN.md).

Adding what enters and subtracting what leaves accumulates error and makes a value depend on where the
run began. Here time is cut into blocks of h / 8 aligned to the epoch, and a window is always

    suffix of the oldest, partly covered block    summed from the block's end backwards
  + the 7 full blocks between                     combined anew whenever a block begins
  + the current block up to this row              summed forwards from the block's start

without any subtraction: amortised O(1) a row, and the bits depend only on the events inside the window.
Events before the first window are harmless. NaN values are left out.

The events (rows, trades, cells) and the times at which windows are asked for (rows) are separate: query q
at time ``query_ts[q]`` sees the events 0 .. query_end[q], all those before its time among them. A window of a
column at its own rows is the case query_end[q] = q + 1.

What the blocks hold is kept from call to call (``SUMS``), so that a call costs its own rows and little for those in
the window behind them; zeros there mean that nothing is known, and the blocks are summed from the history.

What it costs is waiting: of a sum for the one before it, of a comparison for the one that says where it is. So four of
everything go forward together, at the price of one: four columns are summed in one loop, and where windows begin is
found once for all of them, in four stretches of the rows at a time. No such loop has a branch: NaN is made 0.0 before
(a sum that begins at 0.0 is the same with it, bit for bit), and how many values a window holds is a difference of two
counts. At 56 rows a second the five windows of one column cost 24 ns a row, those of four columns 27.

Tried and rejected: a running sum with Neumaier compensation (drifts less, but still depends on the start);
two stacks (exact shape, but their flip depends on the start). Guarded by tests/test_properties.py. A column at a time,
with NaN and squares in its loops: 56 ns for one and 120 for four. Where windows begin by a loop that walks on while
rows leave: mispredicted at every second row, 7.4 ns a row and window where the merge takes 1.2. Columns cleaned of NaN
side by side in one array: 20 ns for memory that is new at each call.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, State, helper, kernel
from tickstate.kernels.blocks import At

SUM, MEAN, ROOT_OF_SQUARES, SUM_OF_SQUARES = range(4)
BLOCKS = 8  # a power of two: a slot of the ring is b & LAST, never b % BLOCKS
LAST = BLOCKS - 1
BEFORE_ALL = -(1 << 62)  # before any time in microseconds, and no block of any

SUMS = np.dtype([("known", "i8"), ("last", "i8"), ("block", "i8"), ("ring", "f8", (8,))])
"""Of one column and window: whether anything is known; the last query's time (us), its block's number; the sums of that
block and the 7 before it."""


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
    end = At(begin)
    while end < At(event_ts.shape[0]) and event_ts[end] < time:
        end += At(1)
    return np.int64(end)


@helper
def position(event_ts, query_ts, width, low, steps):
    """How many queries the merge of ``find_edges`` has done with after ``steps``; it begins at the event ``low``."""
    done, end = 0, query_ts.shape[0]
    while done < end:
        q = (done + end) // 2
        if first_after(event_ts, query_ts[q] - width) - low + q < steps:
            done = q + 1
        else:
            end = q
    return done


@helper
def merge_step(event_ts, query_ts, width, low, q, out):
    """Leave out the event ``low`` or, where it is in the window of query q, go on to the next query. No branch."""
    out[q] = low
    gone = At(event_ts[low] <= query_ts[q] - width)
    return low + gone, q + (At(1) - gone)


@helper
def find_edges(event_ts, query_ts, width, out):
    """out[q] = the first event later than query_ts[q] - width, the number of events where there is none.

    A merge in four stretches of as many steps each, side by side.
    """
    m = event_ts.shape[0]
    n = first_after(query_ts, event_ts[m - 1] + width - 1) if m > 0 else 0
    out[n:] = m
    if n == 0:
        return
    rows, low = query_ts[:n], first_after(event_ts, query_ts[0] - width)
    steps = n + first_after(event_ts, rows[n - 1] - width) - low
    quarter = steps // 4
    begin_b = position(event_ts, rows, width, low, quarter)
    begin_c = position(event_ts, rows, width, low, 2 * quarter)
    begin_d = position(event_ts, rows, width, low, 3 * quarter)
    a, b, c, d = At(0), At(begin_b), At(begin_c), At(begin_d)
    low_a, low_b = At(low), At(low + quarter - begin_b)
    low_c, low_d = At(low + 2 * quarter - begin_c), At(low + 3 * quarter - begin_d)
    for _ in range(quarter):
        low_a, a = merge_step(event_ts, rows, width, low_a, a, out)
        low_b, b = merge_step(event_ts, rows, width, low_b, b, out)
        low_c, c = merge_step(event_ts, rows, width, low_c, c, out)
        low_d, d = merge_step(event_ts, rows, width, low_d, d, out)
    for _ in range(steps - 4 * quarter):
        low_d, d = merge_step(event_ts, rows, width, low_d, d, out)
    for q in (begin_b, begin_c, begin_d):  # the stretch before ended amid this query, and wrote last
        out[q] = first_after(event_ts, rows[q] - width)


@helper
def count_nulls(x):
    """How many values of ``x`` are NaN."""
    nulls = 0
    for i in range(x.shape[0]):
        nulls += 1 if math.isnan(x[i]) else 0
    return nulls


@helper
def addends(x, square, nulls):
    """``x`` or its squares, with 0.0 for NaN: itself where that is what it is."""
    if not square and nulls == 0:
        return x
    found = np.empty(x.shape[0])
    for i in range(x.shape[0]):
        found[i] = 0.0 if math.isnan(x[i]) else x[i] * x[i] if square else x[i]
    return found


@helper
def count_values(x, seen):
    """seen[i] = the number of values of ``x`` before row i."""
    total = 0
    for i in range(x.shape[0]):
        seen[i] = total
        total += 0 if math.isnan(x[i]) else 1
    seen[x.shape[0]] = total


@helper
def open_block(ring, latest, b):
    """Empty the slots of the blocks behind ``latest`` up to ``b``; returns b, now the latest."""
    for opened in range(max(latest, b - BLOCKS) + 1, b + 1):
        ring[opened & LAST, :] = 0.0
    return b


@helper
def sum_between(ring, now):
    """The sums of the full blocks now - 7 .. now - 1, oldest first."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for block in range(now - LAST, now):
        s = block & LAST
        a, b, c, d = a + ring[s, 0], b + ring[s, 1], c + ring[s, 2], d + ring[s, 3]
    return a, b, c, d


@helper
def with_room(buffer, n):
    """A buffer of at least ``n`` rows: of the events of a block and no more, so that it is never memory new to us."""
    return buffer if buffer.shape[0] >= n else np.empty((n + n // 2, buffer.shape[1]))


@helper
def fill_suffix(columns, begin, end, suffix):
    """suffix[j - begin] = the sums of the events j .. end, added from the end."""
    x, y, z, u = columns
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    j = end - begin
    suffix[j, 0], suffix[j, 1], suffix[j, 2], suffix[j, 3] = a, b, c, d
    for i in range(end - 1, begin - 1, -1):
        at, j = At(i), At(i - begin)
        a, b, c, d = a + x[at], b + y[at], c + z[at], d + u[at]
        suffix[j, 0], suffix[j, 1], suffix[j, 2], suffix[j, 3] = a, b, c, d


@helper
def fill_prefix(columns, begin, end, total, prefix):
    """prefix[j - begin] = ``total`` and the sums of the events begin .. j; ``total`` goes forward to the end."""
    x, y, z, u = columns
    a, b, c, d = total[0], total[1], total[2], total[3]
    prefix[0, 0], prefix[0, 1], prefix[0, 2], prefix[0, 3] = a, b, c, d
    for i in range(begin, end):
        at, j = At(i), At(i + 1 - begin)
        a, b, c, d = a + x[at], b + y[at], c + z[at], d + u[at]
        prefix[j, 0], prefix[j, 1], prefix[j, 2], prefix[j, 3] = a, b, c, d
    total[0], total[1], total[2], total[3] = a, b, c, d


@helper
def read_ring(carry, ring):
    """The blocks' sums of each column; returns the number of the latest block."""
    for c in range(carry.shape[0]):
        for s in range(BLOCKS):
            ring[s, c] = carry[c]["ring"][s]
    return carry[0]["block"] if carry[0]["known"] == 1 else BEFORE_ALL


@helper
def keep_ring(carry, ring, latest, last):
    """What ``read_ring`` reads at the next call, which goes on after the time ``last``."""
    for c in range(carry.shape[0]):
        carry[c]["known"], carry[c]["last"], carry[c]["block"] = 1, last, latest
        for s in range(BLOCKS):
            carry[c]["ring"][s] = ring[s, c]


@helper
def fold_sums(event_ts, columns, i, query_ts, query_end, edges, width, carry, out):
    """The sums of four ``columns`` over one window of ``width`` microseconds, for each query; no NaN among them.

    ``edges`` as ``find_edges``; ``carry``: SUMS of the columns that matter; ``i``: the first event that it does not
    hold yet, where anything is known. ``out``: a row for each of the four.
    """
    block, ring, (first, second, third, fourth) = width // BLOCKS, np.zeros((BLOCKS, 4)), out
    suffix, prefix = np.empty((64, 4)), np.empty((64, 4))
    latest = read_ring(carry, ring)
    if latest == BEFORE_ALL:
        i = first_after(event_ts, (query_ts[0] // block - LAST) * block - 1)
    q, n = 0, query_ts.shape[0]
    events = event_ts[: query_end[n - 1]]
    while q < n:
        now = query_ts[q] // block
        while i < events.shape[0] and events[i] < now * block:
            b = events[i] // block
            latest, begin, i = open_block(ring, latest, b), i, block_end_row(events, i, (b + 1) * block)
            prefix = with_room(prefix, i - begin + 1)
            fill_prefix(columns, begin, i, ring[b & LAST], prefix)
        latest, until = open_block(ring, latest, now), (now + 1) * block
        between = sum_between(ring, now)
        oldest, oldest_end = edges[q], block_end_row(events, edges[q], (now - LAST) * block)
        suffix = with_room(suffix, oldest_end - oldest + 1)
        fill_suffix(columns, oldest, oldest_end, suffix)
        begin, i = i, block_end_row(events, i, until)
        prefix = with_room(prefix, i - begin + 1)
        fill_prefix(columns, begin, i, ring[now & LAST], prefix)
        p = At(q)
        while p < At(n) and query_ts[p] < until:
            j, k = At(edges[p] - oldest), At(query_end[p] - begin)
            first[p] = (suffix[j, 0] + between[0]) + prefix[k, 0]
            second[p] = (suffix[j, 1] + between[1]) + prefix[k, 1]
            third[p] = (suffix[j, 2] + between[2]) + prefix[k, 2]
            fourth[p] = (suffix[j, 3] + between[3]) + prefix[k, 3]
            p += At(1)
        q = np.int64(p)
    keep_ring(carry, ring, latest, query_ts[n - 1])


@helper
def finish_sums(kind, nulls, seen, edges, ends, out):
    """Make of sums what ``kind`` says, NaN where a window holds no value; ``seen`` is read if there are ``nulls``."""
    for q in range(out.shape[0]):
        count = ends[q] - edges[q] if nulls == 0 else seen[ends[q]] - seen[edges[q]]
        if kind == MEAN:
            out[q] /= count
        elif kind == ROOT_OF_SQUARES:
            out[q] = math.sqrt(out[q])
        if count == 0:
            out[q] = math.nan


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
    n, w, k, given = x.shape[0], widths.shape[0], kinds.shape[0], (x, second, third, fourth)
    nulls, seen = np.zeros(4, np.int64), np.empty((k, n + 1), np.int64)
    for c in range(k):
        nulls[c] = count_nulls(given[c])
        if nulls[c] > 0:
            count_values(given[c], seen[c])
    square = [c < k and kinds[c] >= ROOT_OF_SQUARES for c in range(4)]
    columns = (
        addends(x, square[0], nulls[0]), addends(second, square[1], nulls[1]), addends(third, square[2], nulls[2]),
        addends(fourth, square[3], nulls[3]),
    )  # fmt: skip
    rows, ends = capture_ts[start:], own_ends(start, n)
    edges, spare = np.empty(n - start, np.int64), np.empty(n - start)
    for h in range(w):
        find_edges(capture_ts, rows, widths[h], edges)
        sums = (
            out[h], out[w + h] if k > 1 else spare, out[2 * w + h] if k > 2 else spare,
            out[3 * w + h] if k > 3 else spare,
        )  # fmt: skip
        fold_sums(capture_ts, columns, start, rows, ends, edges, widths[h], memory[h::w], sums)
        for c in range(k):
            if kinds[c] in (SUM, SUM_OF_SQUARES) and nulls[c] == 0:
                continue  # each window holds its own row
            finish_sums(kinds[c], nulls[c], seen[c], edges, ends, out[c * w + h])


@kernel
def ratio_windows(
    capture_ts: Ints, x: Floats, y: Floats, start: Int, memory: State(SUMS), widths: Ints, out: Block
) -> None:  # fmt: skip
    """sum of ``x`` / sum of ``y`` over windows at their own rows, as ``sum_windows``; NaN where the latter is 0.

    ``memory`` (2 w).
    """
    n, w, rows = x.shape[0], widths.shape[0], capture_ts[start:]
    above, under = addends(x, False, count_nulls(x)), addends(y, False, count_nulls(y))
    ends, edges = own_ends(start, n), np.empty(n - start, np.int64)
    below, spare = np.empty(n - start), np.empty(n - start)
    for h in range(w):
        find_edges(capture_ts, rows, widths[h], edges)
        columns, sums = (above, under, above, above), (out[h], below, spare, spare)
        fold_sums(capture_ts, columns, start, rows, ends, edges, widths[h], memory[h::w], sums)
        for q in range(n - start):
            out[h, q] = out[h, q] / below[q] if below[q] != 0.0 else math.nan


@kernel
def count_windows(capture_ts: Ints, start: Int, widths: Ints, out: Block) -> None:
    """Number of rows in the windows ``widths`` (microseconds), out (w, n - start)."""
    n, edges = capture_ts.shape[0] - start, np.empty(capture_ts.shape[0] - start, np.int64)
    for h in range(widths.shape[0]):
        find_edges(capture_ts, capture_ts[start:], widths[h], edges)
        for q in range(n):
            out[h, q] = start + q + 1 - edges[q]
