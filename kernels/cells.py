"""The 1 s grid (FEATURES.md section 1 "Cells"): what happened in each whole second, and folds over past seconds.

At a row in cell K only cells before K are complete, so that every row of a second sees the same
values, and a feed with more updates a second is not more volatile for it. Cells are kept from call to call, so
that a call does not go through the rows behind it again: the first entry of ``CELLS`` and ``PAIRS`` counts those that
follow, plus 1, and is 0 where nothing is known.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, State, helper, kernel
from tickstate.kernels.window import BEFORE_ALL, SUMS, addends, find_edges, fold_sums

CELL = 1_000_000  # microseconds
CELLS = np.dtype([("time", "i8"), ("sum", "f8")])
PAIRS = np.dtype([("time", "i8"), ("sums", "f8", (4,))])
ZERO = 1e-12
"""A variance counts as 0 where the cells' sums spread by no more than this share of what was summed in a cell."""


@helper
def fill_cells(capture_ts, x, begin, found, times, sums):
    """Sum the non-null ``x`` of each second from row ``begin`` on, behind the ``found`` cells that are there.

    Seconds without any are left out. Returns the number of cells.
    """
    for i in range(begin, x.shape[0]):
        if math.isnan(x[i]):
            continue
        if found == 0 or capture_ts[i] - times[found - 1] >= CELL:
            times[found], sums[found] = (capture_ts[i] // CELL) * CELL, 0.0
            found += 1
        sums[found - 1] += x[i]
    return found


@helper
def completed(capture_ts, start, times):
    """The rows from ``start`` on in groups that have the same last completed second.

    Returns each group's first row, with the number of rows behind them; when its second began; and how many cells
    there are by then.
    """
    n, groups, end, until = capture_ts.shape[0], 0, 0, BEFORE_ALL
    begins, last, ends = np.empty(n - start + 1, np.int64), np.empty(n - start, np.int64), np.empty(n - start, np.int64)
    for i in range(start, n):
        if capture_ts[i] >= until:
            now = (capture_ts[i] // CELL) * CELL
            until = now + CELL
            while end < times.shape[0] and times[end] < now:
                end += 1
            begins[groups], last[groups], ends[groups] = i - start, now - CELL, end
            groups += 1
    begins[groups] = n - start
    return begins[: groups + 1], last[:groups], ends[:groups]


@kernel
def cell_volatility(
    capture_ts: Ints, x: Floats, start: Int, memory: State(CELLS), widths: Ints, out: Block
) -> None:  # fmt: skip
    """sqrt(sum of the squared cell sums of ``x`` over the last h completed cells), h = widths (us); NaN if none. k = w.

    The history must hold every row with capture_ts > capture_ts[start] - (h + 1 s). ``memory``: 1 entry, and one a
    second of the longest window and two.
    """
    n, room = x.shape[0], memory.shape[0] - 1
    begin, kept = (start, memory[0]["time"] - 1) if memory[0]["time"] > 0 else (0, 0)
    times, sums = np.empty(kept + n - begin, np.int64), np.empty(kept + n - begin)
    for j in range(kept):
        times[j], sums[j] = memory[1 + j]["time"], memory[1 + j]["sum"]
    found = fill_cells(capture_ts, x, begin, kept, times, sums)
    begins, last, ends = completed(capture_ts, start, times[:found])
    times, squares = times[:found], addends(sums[:found], True, 0)
    edges, total, spare, carry = np.empty_like(last), np.empty(last.size), np.empty(last.size), np.zeros(1, SUMS)
    for h in range(widths.shape[0]):
        carry[0]["known"] = 0
        find_edges(times, last, widths[h], edges)
        columns = (squares, squares, squares, squares)
        fold_sums(times, columns, 0, last, ends, edges, widths[h], carry, (total, spare, spare, spare))
        for g in range(last.shape[0]):
            out[h, begins[g] : begins[g + 1]] = math.sqrt(total[g]) if edges[g] < ends[g] else math.nan
    kept = min(found, room)
    for j in range(kept):
        memory[1 + j]["time"], memory[1 + j]["sum"] = times[found - kept + j], sums[found - kept + j]
    memory[0]["time"] = kept + 1


@helper
def fill_pairs(capture_ts, x, y, begin, found, times, cells):
    """Cells of the rows from ``begin`` on where both are not null, behind the ``found`` cells that are there.

    Sums of x and y, sums of their magnitudes. Returns their number.
    """
    for i in range(begin, x.shape[0]):
        if math.isnan(x[i]) or math.isnan(y[i]):
            continue
        if found == 0 or capture_ts[i] - times[found - 1] >= CELL:
            times[found] = (capture_ts[i] // CELL) * CELL
            cells[found, :] = 0.0
            found += 1
        cells[found - 1, 0] += x[i]
        cells[found - 1, 1] += y[i]
        cells[found - 1, 2] += abs(x[i])
        cells[found - 1, 3] += abs(y[i])
    return found


@helper
def regress(cells, begin, end):
    """Slope and squared correlation of y on x over cells begin .. end; NaN where a variance it divides by is 0.

    A variance is 0 where a column's sums differ by rounding alone: relative to what was summed, never absolute. Two
    passes about the means, over at most 300 cells and once a second: more exact than merged cross moments and, at one
    fold a cell, no slower. Tried and rejected: blocks of merged moments as in ``moment_window``.
    """
    n = end - begin
    mean_x, low_x, high_x, size_x = 0.0, math.inf, -math.inf, 0.0
    mean_y, low_y, high_y, size_y = 0.0, math.inf, -math.inf, 0.0
    for j in range(begin, end):
        x, y = cells[j, 0], cells[j, 1]
        mean_x, mean_y = mean_x + x, mean_y + y
        low_x, high_x, size_x = min(low_x, x), max(high_x, x), max(size_x, cells[j, 2])
        low_y, high_y, size_y = min(low_y, y), max(high_y, y), max(size_y, cells[j, 3])
    mean_x /= n
    mean_y /= n
    xx, xy, yy = 0.0, 0.0, 0.0
    for j in range(begin, end):
        dx, dy = cells[j, 0] - mean_x, cells[j, 1] - mean_y
        xx += dx * dx
        xy += dx * dy
        yy += dy * dy
    if high_x - low_x <= ZERO * size_x or xx == 0.0:
        return math.nan, math.nan
    slope = xy / xx
    if high_y - low_y <= ZERO * size_y or yy == 0.0:
        return slope, math.nan
    correlation = xy / math.sqrt(xx) / math.sqrt(yy)
    return slope, correlation * correlation


@kernel
def cell_regression(
    capture_ts: Ints, x: Floats, y: Floats, mask: Floats, start: Int, memory: State(PAIRS),
    width: Int, min_cells: Int, out: Block,
) -> None:  # fmt: skip
    """Slope of y on x and squared correlation over the completed cells of the last ``width`` us. k = 2.

    Cells sum the rows where both are not null; NaN with fewer than ``min_cells`` of them, and where ``mask`` is.
    The history must hold every row with capture_ts > capture_ts[start] - (width + 1 s). ``memory``: 1 entry, and one a
    second of the window and two.
    """
    n, room = x.shape[0], memory.shape[0] - 1
    first, kept = (start, memory[0]["time"] - 1) if memory[0]["time"] > 0 else (0, 0)
    times, cells = np.empty(kept + n - first, np.int64), np.empty((kept + n - first, 4))
    for j in range(kept):
        times[j] = memory[1 + j]["time"]
        cells[j, :] = memory[1 + j]["sums"]
    found = fill_pairs(capture_ts, x, y, first, kept, times, cells)
    begins, last, ends = completed(capture_ts, start, times[:found])
    begin = 0
    for g in range(last.shape[0]):
        while begin < ends[g] and times[begin] <= last[g] - width:
            begin += 1
        slope, share = math.nan, math.nan
        if ends[g] - begin >= min_cells:
            slope, share = regress(cells, begin, ends[g])
        for q in range(begins[g], begins[g + 1]):
            known = not math.isnan(mask[start + q])
            out[0, q] = slope if known else math.nan
            out[1, q] = share if known else math.nan
    kept = min(found, room)
    for j in range(kept):
        memory[1 + j]["time"] = times[found - kept + j]
        memory[1 + j]["sums"][:] = cells[found - kept + j, :]
    memory[0]["time"] = kept + 1
