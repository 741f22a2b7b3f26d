"""What a bar holds (FEATURES.md section 7): kernels over rows cut into bars.

``ends`` (b): bar j of this call holds the rows ends[j - 1] .. ends[j] - 1, the first one also those that the state
brings; rows behind the last end go into the state. ``out`` is (k, b). Sums over rows carry their rounding errors
along (``add_exactly``): a bar's volume is its trades' to the last bit, however many there are.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, Levels, State, kernel
from tickstate.kernels.bars import add_exactly

MEAN, SUM, SUM_OF_SQUARES = range(3)
CELL = 1_000_000  # microseconds
PRICE_STATE = np.dtype([("open", "f8"), ("high", "f8"), ("low", "f8"), ("close", "f8"), ("known", "i8")])
FLOW_STATE = np.dtype([(f"{what}{part}", "f8") for what in ("volume", "quote", "base", "buy", "sell") for part in "hl"])
FOLD_STATE = np.dtype([("total", "f8"), ("low", "f8"), ("count", "f8")])
CLOCK_STATE = np.dtype([
    ("known", "i8"), ("time", "i8"), ("spread", "f8"), ("covered", "i8"), ("area", "f8"), ("arealow", "f8"),
    ("cell", "i8"), ("sum", "f8"), ("squares", "f8"), ("low", "f8"), ("cells", "i8"),
])  # fmt: skip


@kernel
def price_bars(price: Floats, ends: Ints, state: State(PRICE_STATE), out: Block) -> None:
    """open, high, low, close, return = close / open - 1, range = (high - low) / open. k = 6."""
    s = state[0]
    first, high, low, close, known = s["open"], s["high"], s["low"], s["close"], s["known"]
    begin = 0
    for j in range(ends.shape[0] + 1):
        end = ends[j] if j < ends.shape[0] else price.shape[0]
        for i in range(begin, end):
            if known == 0:
                first, high, low, known = price[i], price[i], price[i], 1
            high, low, close = max(high, price[i]), min(low, price[i]), price[i]
        if j < ends.shape[0]:
            out[0, j], out[1, j], out[2, j], out[3, j] = first, high, low, close
            out[4, j] = close / first - 1.0
            out[5, j] = (high - low) / first
            known = 0
        begin = end
    s["open"], s["high"], s["low"], s["close"], s["known"] = first, high, low, close, known


@kernel
def fold_bars(x: Levels, ends: Ints, state: State(FOLD_STATE), source: Ints, kinds: Ints, out: Block) -> None:
    """A mean, sum or sum of squares (``kinds``) of a column's (``source``) non-null values; NaN in a bar without any.

    ``x`` [column, row]; ``state`` [output]: the sum in two parts and the number of values of the open bar. k outputs.
    """
    for c in range(kinds.shape[0]):
        values = x[source[c]]
        total, low, count = state[c]["total"], state[c]["low"], state[c]["count"]
        begin = 0
        for j in range(ends.shape[0] + 1):
            end = ends[j] if j < ends.shape[0] else x.shape[1]
            for i in range(begin, end):
                value = values[i]
                if not math.isnan(value):
                    total, low = add_exactly(total, low, value * value if kinds[c] == SUM_OF_SQUARES else value)
                    count += 1.0
            if j < ends.shape[0]:
                out[c, j] = math.nan
                if count > 0.0:
                    out[c, j] = (total + low) / count if kinds[c] == MEAN else total + low
                total, low, count = 0.0, 0.0, 0.0
            begin = end
        state[c]["total"], state[c]["low"], state[c]["count"] = total, low, count


@kernel
def flow_bars(
    amount: Floats, quote: Floats, base: Floats, side: Floats, ends: Ints, state: State(FLOW_STATE), out: Block
) -> None:
    """volume, quote_volume, buy_volume, sell_volume, vwap = quote / base, imbalance = (buy - sell) / (buy + sell). k = 6.

    A trade without a side counts in volume and quote alone; 0 / 0 is NaN.
    """  # noqa: E501 - one line a summary
    s = state[0]
    vh, vl, qh, ql, nh, nl = s["volumeh"], s["volumel"], s["quoteh"], s["quotel"], s["baseh"], s["basel"]
    bh, bl, sh, sl = s["buyh"], s["buyl"], s["sellh"], s["selll"]
    begin = 0
    for j in range(ends.shape[0] + 1):
        end = ends[j] if j < ends.shape[0] else amount.shape[0]
        for i in range(begin, end):
            vh, vl = add_exactly(vh, vl, amount[i])
            qh, ql = add_exactly(qh, ql, quote[i])
            nh, nl = add_exactly(nh, nl, base[i])
            bh, bl = add_exactly(bh, bl, amount[i] if side[i] > 0.0 else 0.0)
            sh, sl = add_exactly(sh, sl, amount[i] if side[i] < 0.0 else 0.0)
        if j < ends.shape[0]:
            buy, sell = bh + bl, sh + sl
            out[0, j], out[1, j], out[2, j], out[3, j] = vh + vl, qh + ql, buy, sell
            out[4, j] = (qh + ql) / (nh + nl)
            out[5, j] = (buy - sell) / (buy + sell) if buy + sell > 0.0 else math.nan
            vh, vl, qh, ql, nh, nl = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            bh, bl, sh, sl = 0.0, 0.0, 0.0, 0.0
        begin = end
    s["volumeh"], s["volumel"], s["quoteh"], s["quotel"], s["baseh"], s["basel"] = vh, vl, qh, ql, nh, nl
    s["buyh"], s["buyl"], s["sellh"], s["selll"] = bh, bl, sh, sl


@kernel
def spread_time(
    capture_ts: Ints,
    spread: Floats,
    bar_end: Ints,
    ends: Ints,
    state: State(CLOCK_STATE),
    max_staleness: Int,
    out: Block,
) -> None:
    """Time-weighted spread and the seconds that counted. k = 2.

    Each row's spread stands until the next row or ``bar_end`` (b, us); a stretch longer than ``max_staleness`` (us)
    does not count; NaN where none does.
    """
    s = state[0]
    known, time, held = s["known"], s["time"], s["spread"]
    covered, area, low = s["covered"], s["area"], s["arealow"]
    begin = 0
    for j in range(ends.shape[0] + 1):
        end = ends[j] if j < ends.shape[0] else capture_ts.shape[0]
        for i in range(begin, end):
            stretch = capture_ts[i] - time
            if known != 0 and stretch <= max_staleness:
                covered += stretch
                area, low = add_exactly(area, low, held * stretch)
            known, time, held = 1, capture_ts[i], spread[i]
        if j < ends.shape[0]:
            stretch = bar_end[j] - time
            if known != 0 and stretch <= max_staleness:
                covered += stretch
                area, low = add_exactly(area, low, held * stretch)
            out[0, j] = (area + low) / covered if covered > 0 else math.nan
            out[1, j] = covered / 1e6
            known, covered, area, low = 0, 0, 0.0, 0.0
        begin = end
    s["known"], s["time"], s["spread"] = known, time, held
    s["covered"], s["area"], s["arealow"] = covered, area, low


@kernel
def second_variance(capture_ts: Ints, log_return: Floats, ends: Ints, state: State(CLOCK_STATE), out: Block) -> None:
    """Sum over the bar's 1 s cells of the squared sums of ``log_return``; NaN in a bar without a value. k = 1."""
    s = state[0]
    cell, total, squares, low, cells = s["cell"], s["sum"], s["squares"], s["low"], s["cells"]
    begin = 0
    for j in range(ends.shape[0] + 1):
        end = ends[j] if j < ends.shape[0] else capture_ts.shape[0]
        for i in range(begin, end):
            if math.isnan(log_return[i]):
                continue
            now = capture_ts[i] // CELL
            if cells == 0 or now != cell:
                squares, low = add_exactly(squares, low, total * total)
                cell, total, cells = now, 0.0, cells + 1
            total += log_return[i]
        if j < ends.shape[0]:
            squares, low = add_exactly(squares, low, total * total)
            out[0, j] = squares + low if cells > 0 else math.nan
            total, squares, low, cells = 0.0, 0.0, 0.0, 0
        begin = end
    s["cell"], s["sum"], s["squares"], s["low"], s["cells"] = cell, total, squares, low, cells


@kernel
def annual_volatility(variance: Floats, covered: Floats, ends: Ints, year: Int, out: Block) -> None:
    """sqrt(variance * ``year`` / covered), both in seconds; NaN where nothing is covered. k = 1."""
    for j in range(ends.shape[0]):
        out[0, j] = math.sqrt(variance[j] * year / covered[j]) if covered[j] > 0.0 else math.nan
