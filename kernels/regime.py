"""Where a value stands in its recent past (FEATURES.md section 3.5), and returns over horizons (3.4)."""

import math

import numpy as np

from tickstate.kernels._jit import Block, Float, Floats, Int, Ints, helper, kernel
from tickstate.kernels.window import first_after

TIGHT, NORMAL, WIDE = range(3)


@helper
def lower_bound(values, count, x):
    """How many of the first ``count`` ascending ``values`` are below x."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if values[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@helper
def add_to_tree(tree, place, amount):
    """Add to one place of a Fenwick tree (Fenwick 1994)."""
    j = place + 1
    while j < tree.shape[0]:
        tree[j] += amount
        j += j & -j


@helper
def sum_below(tree, place):
    """The sum over places below ``place``."""
    total, j = 0, place
    while j > 0:
        total += tree[j]
        j -= j & -j
    return total


@helper
def distinct_values(x):
    """The distinct non-null values in ascending order, at the front of an array, and their number."""
    values, distinct = np.sort(x), 0
    for j in range(values.shape[0]):
        if math.isnan(values[j]):
            break  # sorted to the end
        if distinct == 0 or values[j] != values[distinct - 1]:
            values[distinct] = values[j]
            distinct += 1
    return values, distinct


@kernel
def rank_in_window(
    capture_ts: Ints, x: Floats, start: Int,
    width: Int, slack: Float, min_rows: Int, low: Float, high: Float, out: Block,
) -> None:  # fmt: skip
    """Share of the window's rows with a value < x * (1 - slack), and the regime it means. k = 2.

    The window (t - width, t] holds this row too; NaN values are left out; NaN with fewer than ``min_rows``. The
    regime is TIGHT at a share <= ``low``, WIDE at >= ``high``, else NORMAL. Exact, O(log n) a row: counts in a
    Fenwick tree over the distinct values.
    """
    n = x.shape[0]
    begin = first_after(capture_ts, capture_ts[start] - width)
    values, distinct = distinct_values(x[begin:])
    tree, rows = np.zeros(distinct + 1, np.int64), 0
    for i in range(begin, n):
        if not math.isnan(x[i]):
            add_to_tree(tree, lower_bound(values, distinct, x[i]), 1)
            rows += 1
        if i < start:
            continue
        while capture_ts[begin] <= capture_ts[i] - width:
            if not math.isnan(x[begin]):
                add_to_tree(tree, lower_bound(values, distinct, x[begin]), -1)
                rows -= 1
            begin += 1
        o = i - start
        if rows < min_rows or math.isnan(x[i]):
            out[0, o] = out[1, o] = math.nan
            continue
        share = sum_below(tree, lower_bound(values, distinct, x[i] * (1.0 - slack))) / rows
        out[0, o] = share
        out[1, o] = TIGHT if share <= low else WIDE if share >= high else NORMAL


@kernel
def regime_shares(capture_ts: Ints, regime: Floats, start: Int, width: Int, max_staleness: Int, out: Block) -> None:
    """Shares of time in TIGHT and in WIDE over (t - width, t]. k = 2.

    The time between two rows carries the earlier one's regime and is clipped to the window; it does not count where
    it is longer than ``max_staleness`` or the regime is NaN. NaN if no time counts. In integer microseconds, so that
    adding what enters and taking off what leaves is exact.
    """
    n = capture_ts.shape[0]
    begin = max(0, first_after(capture_ts, capture_ts[start] - width) - 1)
    spent, oldest = np.zeros(3, np.int64), begin
    for i in range(begin, n):
        if i > begin:
            step = capture_ts[i] - capture_ts[i - 1]
            if step <= max_staleness and not math.isnan(regime[i - 1]):
                spent[int(regime[i - 1])] += step
        if i < start:
            continue
        edge = capture_ts[i] - width
        while oldest < i and capture_ts[oldest + 1] <= edge:
            step = capture_ts[oldest + 1] - capture_ts[oldest]
            if step <= max_staleness and not math.isnan(regime[oldest]):
                spent[int(regime[oldest])] -= step
            oldest += 1
        outside = 0
        carried = -1
        if oldest < i and capture_ts[oldest] < edge:
            step = capture_ts[oldest + 1] - capture_ts[oldest]
            if step <= max_staleness and not math.isnan(regime[oldest]):
                outside, carried = edge - capture_ts[oldest], int(regime[oldest])
        total = spent[0] + spent[1] + spent[2] - outside
        for row in range(2):
            which = WIDE if row else TIGHT
            inside = spent[which] - (outside if carried == which else 0)
            out[row, i - start] = inside / total if total > 0 else math.nan


@kernel
def horizon_returns(
    capture_ts: Ints, mid: Floats, start: Int, widths: Ints, max_staleness: Int, out: Block
) -> None:  # fmt: skip
    """ln(m / m_h), m_h of the last row with capture_ts <= t - h, h = widths (us). k = w.

    NaN if there is none, or a gap of more than ``max_staleness`` between any two rows since. The history must hold
    every row with capture_ts > capture_ts[start] - (h + max_staleness).
    """
    n = capture_ts.shape[0]
    unbroken = np.empty(n, np.int64)
    for i in range(n):
        gap = i > 0 and capture_ts[i] - capture_ts[i - 1] > max_staleness
        unbroken[i] = i if gap or i == 0 else unbroken[i - 1]
    for h in range(widths.shape[0]):
        low = first_after(capture_ts, capture_ts[start] - widths[h])
        for i in range(start, n):
            while capture_ts[low] <= capture_ts[i] - widths[h]:
                low += 1
            known = low > 0 and unbroken[i] <= low - 1
            out[h, i - start] = math.log(mid[i] / mid[low - 1]) if known else math.nan
