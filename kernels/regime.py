"""Where a value stands in its recent past (FEATURES.md section 3.5), and returns over horizons (3.4)."""

import math

import numpy as np

from tickstate.kernels._jit import Block, Float, Floats, Int, Ints, State, helper, kernel
from tickstate.kernels.elementary import log
from tickstate.kernels.window import BEFORE_ALL, find_edges, first_after

TIGHT, NORMAL, WIDE = range(3)

RANKS = np.dtype([("value", "f8"), ("rows", "i8")])
"""Distinct values of the window of the last row, and how many rows have each; ``rows`` of the first entry counts those
that follow, plus 1, and is 0 where nothing is known."""

SHARES = np.dtype([("known", "i8"), ("spent", "i8", (3,))])
"""Microseconds in each regime over the window of the last row, its oldest step whole."""

GAPS = np.dtype([("known", "i8"), ("time", "i8")])
"""capture_ts (us) of the last row behind a gap."""


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
def distinct_values(memory, x, begin):
    """The values of ``memory`` and of the rows from ``begin`` on, each once, ascending; and their number.

    A row like the one before it is left out before sorting: a spread changes at few rows.
    """
    kept = max(0, memory[0]["rows"] - 1)
    values, found = np.empty(kept + x.shape[0] - begin), kept
    for j in range(kept):
        values[j] = memory[1 + j]["value"]
    for i in range(begin, x.shape[0]):
        if not math.isnan(x[i]) and (found == 0 or values[found - 1] != x[i]):
            values[found] = x[i]
            found += 1
    values, distinct = np.sort(values[:found]), 0
    for j in range(found):
        if distinct == 0 or values[j] != values[distinct - 1]:
            values[distinct] = values[j]
            distinct += 1
    return values, distinct


@helper
def keep_ranks(memory, values, distinct, held):
    """Put the distinct values of a window into ``memory``; nothing where there are too many."""
    found = 0
    for j in range(distinct):
        if held[j] > 0:
            if found + 1 >= memory.shape[0]:
                memory[0]["rows"] = 0
                return
            memory[1 + found]["value"], memory[1 + found]["rows"] = values[j], held[j]
            found += 1
    memory[0]["rows"] = found + 1


@kernel
def rank_in_window(
    capture_ts: Ints, x: Floats, start: Int, memory: State(RANKS),
    width: Int, slack: Float, min_rows: Int, low: Float, high: Float, out: Block,
) -> None:  # fmt: skip
    """Share of the window's rows with a value < x * (1 - slack), and the regime it means. k = 2.

    The window (t - width, t] holds this row too; NaN values are left out; NaN with fewer than ``min_rows``. The
    regime is TIGHT at a share <= ``low``, WIDE at >= ``high``, else NORMAL. Exact, O(log n) a row: counts in a
    Fenwick tree over the distinct values. Rows like the one before are not looked up again.
    """
    n, known = x.shape[0], memory[0]["rows"] > 0
    begin = first_after(capture_ts, capture_ts[start - 1 if known else start] - width)
    values, distinct = distinct_values(memory, x, start if known else begin)
    tree, held, rows = np.zeros(distinct + 1, np.int64), np.zeros(distinct, np.int64), 0
    for j in range(1, memory[0]["rows"]):
        place = lower_bound(values, distinct, memory[j]["value"])
        add_to_tree(tree, place, memory[j]["rows"])
        held[place], rows = memory[j]["rows"], rows + memory[j]["rows"]
    entered, left, place, gone, share_of, below = math.nan, math.nan, 0, 0, math.nan, 0
    for i in range(start if known else begin, n):
        if not math.isnan(x[i]):
            if x[i] != entered:
                entered, place = x[i], lower_bound(values, distinct, x[i])
            add_to_tree(tree, place, 1)
            held[place], rows = held[place] + 1, rows + 1
        if i < start:
            continue
        while capture_ts[begin] <= capture_ts[i] - width:
            if not math.isnan(x[begin]):
                if x[begin] != left:
                    left, gone = x[begin], lower_bound(values, distinct, x[begin])
                add_to_tree(tree, gone, -1)
                held[gone], rows = held[gone] - 1, rows - 1
            begin += 1
        o = i - start
        if rows < min_rows or math.isnan(x[i]):
            out[0, o] = out[1, o] = math.nan
            continue
        if x[i] != share_of:
            share_of, below = x[i], lower_bound(values, distinct, x[i] * (1.0 - slack))
        share = sum_below(tree, below) / rows
        out[0, o] = share
        out[1, o] = TIGHT if share <= low else WIDE if share >= high else NORMAL
    keep_ranks(memory, values, distinct, held)


@kernel
def regime_shares(
    capture_ts: Ints, regime: Floats, start: Int, memory: State(SHARES), width: Int, max_staleness: Int, out: Block
) -> None:  # fmt: skip
    """Shares of time in TIGHT and in WIDE over (t - width, t]. k = 2.

    The time between two rows carries the earlier one's regime and is clipped to the window; it does not count where
    it is longer than ``max_staleness`` or the regime is NaN. NaN if no time counts. In integer microseconds, so that
    adding what enters and taking off what leaves is exact.
    """
    n, known = capture_ts.shape[0], memory[0]["known"] == 1
    begin = max(0, first_after(capture_ts, capture_ts[start - 1 if known else start] - width) - 1)
    spent, oldest = memory[0]["spent"], begin
    if not known:
        spent[:] = 0
    for i in range(start if known else begin, n):
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
    memory[0]["known"] = 1


@helper
def last_gap(capture_ts, start, memory, max_staleness):
    """capture_ts of the last row before ``start`` that is behind a gap; before all times if there is none."""
    if memory[0]["known"] == 1:
        return memory[0]["time"]
    for i in range(start - 1, 0, -1):
        if capture_ts[i] - capture_ts[i - 1] > max_staleness:
            return capture_ts[i]
    return BEFORE_ALL


@kernel
def horizon_returns(
    capture_ts: Ints, mid: Floats, start: Int, memory: State(GAPS), widths: Ints, max_staleness: Int, out: Block
) -> None:  # fmt: skip
    """ln(m / m_h), m_h of the last row with capture_ts <= t - h, h = widths (us). k = w.

    NaN if there is none, or a gap of more than ``max_staleness`` between any two rows since. The history must hold
    every row with capture_ts > capture_ts[start] - (h + max_staleness).
    """
    n, rows = mid.shape[0], capture_ts[start:]
    gap, begins, edges = last_gap(capture_ts, start, memory, max_staleness), np.empty_like(rows), np.empty_like(rows)
    begin = first_after(capture_ts, gap - 1)  # the first row behind the gap
    for i in range(start, n):
        if i > 0 and capture_ts[i] - capture_ts[i - 1] > max_staleness:
            gap, begin = capture_ts[i], i
        begins[i - start] = begin
    for h in range(widths.shape[0]):
        find_edges(capture_ts, rows, widths[h], edges)
        for q in range(n - start):
            known = edges[q] > begins[q]
            out[h, q] = log(mid[start + q] / mid[edges[q] - 1]) if known else math.nan
    memory[0]["known"], memory[0]["time"] = 1, gap
