"""Trades seen from the book (FEATURES.md sections 3.3 to 3.5): one merge by the event clock.

``trade_ts``, ``amount``, ``side`` (m): the lane's good trades in order, those that the lookback still needs
and all up to the last snapshot; ``side`` is +1 buy, -1 sell, NaN unknown. A snapshot at t sees the trades with
trade_ts <= t. ``max_gap``: trades are alive at t if the last one is at most that old; if not, every
column here is NaN: unknown, not zero.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Float, Floats, Int, Ints, OutFloats, State, helper, kernel
from tickstate.kernels.step import has_previous
from tickstate.kernels.window import SUMS, find_edges, first_after, fold_sums

CLOCK_STATE = np.dtype([("first", "i8"), ("last", "i8"), ("known", "i8")])
"""trade_ts (us) of the first trade since the last gap and of the last trade; ``known`` 0 before any."""

VPIN_STATE = np.dtype(
    [("day", "i8"), ("last", "i8"), ("known", "i8"), ("buy", "f8"), ("sell", "f8"), ("today", "i8"), ("before", "i8")]
)
"""UTC day of the open bucket, ts of the last trade, buy and sell volume in the open bucket, and how many full
buckets of today and of the day before the ring holds (each at most its length)."""

DAY = 86_400_000_000


@helper
def trade_ends(capture_ts, start, trade_ts):
    """For each row from ``start`` on, the number of trades with trade_ts <= capture_ts."""
    ends = np.empty(capture_ts.shape[0] - start, np.int64)
    find_edges(trade_ts, capture_ts[start:], 0, ends)
    return ends


@helper
def is_alive(t, end, trade_ts, max_gap):
    """Whether the last of the first ``end`` trades is at most ``max_gap`` older than t."""
    return end > 0 and t - trade_ts[end - 1] <= max_gap


@kernel
def trade_clock(
    capture_ts: Ints, trade_ts: Ints, start: Int, state: State(CLOCK_STATE), max_gap: Int, limit: Int, out: Block
) -> None:  # fmt: skip
    """Age of the last trade; min(limit, t - the first trade since the last gap > max_gap). Seconds. k = 2."""
    first, last, known = state[0]["first"], state[0]["last"], state[0]["known"]
    j, m, n = 0, trade_ts.shape[0], capture_ts.shape[0]
    for i in range(start, n + 1):
        while j < m and (i == n or trade_ts[j] <= capture_ts[i]):
            if known == 0 or trade_ts[j] - last > max_gap:
                first = trade_ts[j]
            known, last = 1, trade_ts[j]
            j += 1
        if i < n:
            alive = known == 1 and capture_ts[i] - last <= max_gap
            out[0, i - start] = (capture_ts[i] - last) / 1e6 if alive else math.nan
            out[1, i - start] = min(limit, capture_ts[i] - first) / 1e6 if alive else math.nan
    state[0]["first"], state[0]["last"], state[0]["known"] = first, last, known


@kernel
def signed_volume(
    capture_ts: Ints, trade_ts: Ints, amount: Floats, side: Floats, start: Int,
    max_staleness: Int, max_gap: Int, out: Block,
) -> None:  # fmt: skip
    """Buys less sells between the previous snapshot and this one, (t_prev, t], in lots. k = 1.

    NaN without a previous snapshot, or where trades are not alive. Looks back one row, and ``max_staleness`` in trades.
    """
    ends = trade_ends(capture_ts, start, trade_ts)
    j = first_after(trade_ts, capture_ts[start - 1]) if start > 0 else 0
    for i in range(start, capture_ts.shape[0]):
        end, value = ends[i - start], math.nan
        if has_previous(capture_ts, i, max_staleness) and is_alive(capture_ts[i], end, trade_ts, max_gap):
            value = 0.0
            for c in range(j, end):
                value += 0.0 if math.isnan(side[c]) else side[c] * amount[c]
        j = end
        out[0, i - start] = value


@kernel
def trade_windows(
    capture_ts: Ints, trade_ts: Ints, amount: Floats, side: Floats, start: Int, memory: State(SUMS),
    widths: Ints, max_gap: Int, out: Block,
) -> None:  # fmt: skip
    """Volume, number, buys - sells, and (buys - sells) / (buys + sells) of the trades in (t - h, t]. k = 4 w.

    Rows of ``out``: the w windows' volumes, then their numbers, signed volumes, flow imbalances. Alive without a
    trade in the window is 0, 0, 0 and NaN. A trade without a side counts in volume and number only. ``memory`` (3 w).
    """
    n, w, m = capture_ts.shape[0] - start, widths.shape[0], amount.shape[0]
    new = first_after(trade_ts, memory[0]["last"])
    rows, ends = capture_ts[start:], trade_ends(capture_ts, start, trade_ts)
    signed, sided = np.empty(m), np.empty(m)
    for j in range(m):
        known = not math.isnan(side[j])
        signed[j] = side[j] * amount[j] if known else 0.0
        sided[j] = amount[j] if known else 0.0
    edges, both, spare = np.empty(n, np.int64), np.empty(n), np.empty(n)
    alive = np.empty(n, np.bool_)
    for q in range(n):
        alive[q] = is_alive(rows[q], ends[q], trade_ts, max_gap)
    for h in range(w):
        volume, number, net, imbalance = out[h], out[w + h], out[2 * w + h], out[3 * w + h]
        find_edges(trade_ts, rows, widths[h], edges)
        columns, sums = (amount, signed, sided, amount), (volume, net, both, spare)
        fold_sums(trade_ts, columns, new, rows, ends, edges, widths[h], memory[h::w], sums)
        for q in range(n):
            volume[q] = volume[q] if alive[q] else math.nan
            number[q] = ends[q] - edges[q] if alive[q] else math.nan
            net[q] = net[q] if alive[q] else math.nan
            imbalance[q] = net[q] / both[q] if both[q] > 0.0 else math.nan


@helper
def push_buckets(ring, carry, imbalance, count):
    """Put ``count`` full buckets of today, each of this ``imbalance``, into the ring, newest first."""
    window = ring.shape[0]
    new = min(count, window)
    for j in range(window - 1, new - 1, -1):
        ring[j] = ring[j - new]
    for j in range(new):
        ring[j] = imbalance
    carry["today"] = min(window, carry["today"] + new)


@helper
def fill_buckets(ring, carry, amount, buy_share, volume):
    """Put one trade into the buckets: top up the open one, then whole ones in one go, then the rest."""
    left = amount
    held = carry["buy"] + carry["sell"]
    full = volume * (1.0 - 1e-9)
    if held + left < full:
        carry["buy"] += buy_share * left
        carry["sell"] += (1.0 - buy_share) * left
        return
    part = min(left, max(0.0, volume - held))
    buy, sell = carry["buy"] + buy_share * part, carry["sell"] + (1.0 - buy_share) * part
    push_buckets(ring, carry, abs(buy - sell), 1)
    left = max(0.0, left - part)
    # the remainder of the amount, not a difference of large products: exact however many buckets it fills
    rest = np.fmod(amount, volume) - part
    while rest < 0.0:
        rest += volume
    if left < volume:
        rest = left
    rest = rest - volume if rest >= volume else rest  # a tiny negative plus V rounds to V
    whole = min(np.rint((left - rest) / volume), 1e9)
    push_buckets(ring, carry, abs(2.0 * buy_share - 1.0) * volume, np.int64(whole))
    if rest >= full:
        push_buckets(ring, carry, abs(2.0 * buy_share - 1.0) * rest, 1)
        rest = 0.0
    rest = max(0.0, rest)
    carry["buy"], carry["sell"] = buy_share * rest, (1.0 - buy_share) * rest


@helper
def open_day(carry, day):
    """Begin a UTC day with an empty bucket; full buckets of the day before stay, older ones go."""
    carry["before"] = carry["today"] if day == carry["day"] + 1 else 0
    carry["today"], carry["buy"], carry["sell"], carry["day"] = 0, 0.0, 0.0, day


@kernel
def vpin(
    capture_ts: Ints, trade_ts: Ints, amount: Floats, side: Floats, start: Int,
    state: State(VPIN_STATE), ring: OutFloats, volume: Float, min_buckets: Int, max_gap: Int, out: Block,
) -> None:  # fmt: skip
    """Mean of abs(buy - sell) / V over the last ``ring`` full buckets of V lots, and how many these are. k = 2.

    Easley, Lopez de Prado, O'Hara 2012, section 2, with FEATURES.md section 3.5: buckets start empty at each UTC
    midnight, count through that day and the next, and a trade that overfills one is split over the next ones. A
    trade without a side is half buy, half sell. The cost of a trade is bounded by the ring's length (w),
    however many buckets it fills. Only new trades are given: state and ring hold the rest.
    """
    carry = state[0]
    j, m, n = 0, trade_ts.shape[0], capture_ts.shape[0]
    for i in range(start, n + 1):
        while j < m and (i == n or trade_ts[j] <= capture_ts[i]):
            day = trade_ts[j] // DAY
            if day != carry["day"]:
                open_day(carry, day)
            carry["last"], carry["known"] = trade_ts[j], 1
            share = 0.5 if math.isnan(side[j]) else (1.0 + side[j]) / 2.0
            if volume > 0.0:
                fill_buckets(ring, carry, amount[j], share, volume)
            j += 1
        if i == n:
            continue
        out[0, i - start] = out[1, i - start] = math.nan
        day = capture_ts[i] // DAY
        if volume > 0.0 and carry["known"] == 1 and capture_ts[i] - carry["last"] <= max_gap:
            full = carry["today"] + (carry["before"] if day == carry["day"] else 0)
            full = min(full if day - carry["day"] <= 1 else 0, ring.shape[0])
            out[1, i - start] = full
            if full >= min_buckets:
                total = 0.0
                for c in range(full):
                    total += ring[c]
                out[0, i - start] = total / volume / full
