"""The 1 s grid (FEATURES.md section 1 "Cells"): what happened in each whole second, and folds over past seconds.

At a row in cell K only cells before K are complete, so that every row of a second sees the same
values, and a feed with more updates a second is not more volatile for it.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, helper, kernel
from tickstate.kernels.window import sum_window

CELL = 1_000_000  # microseconds
ZERO = 1e-12
"""A variance counts as 0 where the cells' sums spread by no more than this share of what was summed in a cell."""


@helper
def fill_cells(capture_ts, x, times, sums):
    """Sum the non-null ``x`` of each second; seconds without any are left out. Returns the number of cells."""
    found = 0
    for i in range(x.shape[0]):
        if math.isnan(x[i]):
            continue
        time = (capture_ts[i] // CELL) * CELL
        if found == 0 or times[found - 1] != time:
            times[found], sums[found] = time, 0.0
            found += 1
        sums[found - 1] += x[i]
    return found


@helper
def completed(capture_ts, start, times):
    """For each row from ``start`` on: when the last completed second began, and how many cells there are by then."""
    n = capture_ts.shape[0] - start
    last, ends = np.empty(n, np.int64), np.empty(n, np.int64)
    end = 0
    for i in range(n):
        last[i] = (capture_ts[start + i] // CELL - 1) * CELL
        while end < times.shape[0] and times[end] <= last[i]:
            end += 1
        ends[i] = end
    return last, ends


@kernel
def cell_volatility(capture_ts: Ints, x: Floats, start: Int, widths: Ints, out: Block) -> None:
    """sqrt(sum of the squared cell sums of ``x`` over the last h completed cells), h = widths (us); NaN if none. k = w.

    The history must hold every row with capture_ts > capture_ts[start] - (h + 1 s).
    """
    n = x.shape[0]
    times, sums, suffix = np.empty(n, np.int64), np.empty(n), np.empty(n)
    found = fill_cells(capture_ts, x, times, sums)
    last, ends = completed(capture_ts, start, times[:found])
    counts = np.empty(n - start, np.int64)
    for h in range(widths.shape[0]):
        sum_window(times[:found], sums[:found], last, ends, widths[h], True, suffix, out[h], counts)
        for q in range(n - start):
            out[h, q] = math.sqrt(out[h, q]) if counts[q] else math.nan


@helper
def fill_pairs(capture_ts, x, y, times, cells):
    """Cells of the rows where both are not null: sums of x and y, sums of their magnitudes. Returns their number."""
    found = 0
    for i in range(x.shape[0]):
        if math.isnan(x[i]) or math.isnan(y[i]):
            continue
        time = (capture_ts[i] // CELL) * CELL
        if found == 0 or times[found - 1] != time:
            times[found] = time
            cells[found, :] = 0.0
            found += 1
        cells[found - 1, 0] += x[i]
        cells[found - 1, 1] += y[i]
        cells[found - 1, 2] += abs(x[i])
        cells[found - 1, 3] += abs(y[i])
    return found


@helper
def is_constant(cells, begin, end, c):
    """Whether the sums in column c differ by rounding alone: relative to what was summed, never absolute."""
    low, high, size = math.inf, -math.inf, 0.0
    for j in range(begin, end):
        low, high = min(low, cells[j, c]), max(high, cells[j, c])
        size = max(size, cells[j, c + 2])
    return high - low <= ZERO * size


@helper
def regress(cells, begin, end):
    """Slope and squared correlation of y on x over cells begin .. end; NaN where a variance it divides by is 0.

    Two passes about the means, over at most 300 cells and once a second: more exact than merged cross moments
    and, at one fold a cell, no slower. Tried and rejected: blocks of merged moments as in ``moment_window``.
    """
    n = end - begin
    mean_x, mean_y = 0.0, 0.0
    for j in range(begin, end):
        mean_x += cells[j, 0]
        mean_y += cells[j, 1]
    mean_x /= n
    mean_y /= n
    xx, xy, yy = 0.0, 0.0, 0.0
    for j in range(begin, end):
        dx, dy = cells[j, 0] - mean_x, cells[j, 1] - mean_y
        xx += dx * dx
        xy += dx * dy
        yy += dy * dy
    if is_constant(cells, begin, end, 0) or xx == 0.0:
        return math.nan, math.nan
    slope = xy / xx
    if is_constant(cells, begin, end, 1) or yy == 0.0:
        return slope, math.nan
    return slope, (xy / math.sqrt(xx) / math.sqrt(yy)) ** 2


@kernel
def cell_regression(
    capture_ts: Ints, x: Floats, y: Floats, mask: Floats, start: Int, width: Int, min_cells: Int, out: Block
) -> None:
    """Slope of y on x and squared correlation over the completed cells of the last ``width`` us. k = 2.

    Cells sum the rows where both are not null; NaN with fewer than ``min_cells`` of them, and where ``mask`` is.
    The history must hold every row with capture_ts > capture_ts[start] - (width + 1 s).
    """
    n = x.shape[0]
    times, cells = np.empty(n, np.int64), np.empty((n, 4))
    found = fill_pairs(capture_ts, x, y, times, cells)
    last, ends = completed(capture_ts, start, times[:found])
    begin, done = 0, -1
    slope, share = math.nan, math.nan
    for q in range(n - start):
        if last[q] != done:
            done = last[q]
            while begin < ends[q] and times[begin] <= done - width:
                begin += 1
            slope, share = math.nan, math.nan
            if ends[q] - begin >= min_cells:
                slope, share = regress(cells, begin, ends[q])
        known = not math.isnan(mask[start + q])
        out[0, q] = slope if known else math.nan
        out[1, q] = share if known else math.nan
