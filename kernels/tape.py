"""Kernels of the channels trades and ticker (FEATURES.md sections 4 and 5)."""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, OutFloats, State, helper, kernel
from tickstate.kernels.bars import UNKNOWN, add_exactly
from tickstate.kernels.elementary import log
from tickstate.kernels.step import has_previous

DAY = 86_400_000_000
TOTALS_STATE = np.dtype([
    ("trades", "i8"), ("prints", "i8"), ("amount", "f8"), ("amountlow", "f8"), ("quote", "f8"), ("quotelow", "f8"),
    ("timestamp", "i8"), ("side", "f8"),
])  # fmt: skip
"""Counts and exactly rounded sums over the trades of an hour, and the last print's timestamp and side."""


@kernel
def trade_values(amount: Floats, side: Floats, quote: Floats, start: Int, out: Block) -> None:
    """1 buy, 0 sell, NaN unknown; notional in quote; + or - amount, NaN without a side. k = 3."""
    for i in range(start, amount.shape[0]):
        o = i - start
        out[0, o] = (1.0 + side[i]) / 2.0
        out[1, o] = quote[i]
        out[2, o] = side[i] * amount[i]


@kernel
def price_steps(capture_ts: Ints, price: Floats, start: Int, max_staleness: Int, out: Block) -> None:
    """ln(price / previous price); NaN without a previous row within ``max_staleness`` (us). k = 1."""
    for i in range(start, price.shape[0]):
        known = has_previous(capture_ts, i, max_staleness)
        out[0, i - start] = log(price[i] / price[i - 1]) if known else math.nan


@kernel
def calendar(capture_ts: Ints, start: Int, out: Block) -> None:
    """ISO day of the week, 1 Monday .. 7 Sunday, and 1 on Saturday and Sunday, UTC. k = 2."""
    for i in range(start, capture_ts.shape[0]):
        day = (capture_ts[i] // DAY + 3) % 7 + 1  # 1970-01-01 was a Thursday
        out[0, i - start] = day
        out[1, i - start] = 1.0 if day >= 6 else 0.0


@helper
def is_volume(x):
    """Whether a quoted volume can be one: finite and not negative."""
    return 0.0 <= x < math.inf


@kernel
def quote_values(
    bid: Floats, ask: Floats, bid_volume: Floats, ask_volume: Floats, start: Int, out: Block
) -> None:  # fmt: skip
    """ask - bid, mid, spread / mid, (bid_volume - ask_volume) / (their sum). k = 4.

    The last is NaN where a volume is missing, not finite or negative, and for 0 / 0.
    """
    for i in range(start, bid.shape[0]):
        o = i - start
        mid = (bid[i] + ask[i]) / 2.0
        out[0, o] = ask[i] - bid[i]
        out[1, o] = mid
        out[2, o] = (ask[i] - bid[i]) / mid
        out[3, o] = math.nan
        if is_volume(bid_volume[i]) and is_volume(ask_volume[i]) and bid_volume[i] + ask_volume[i] > 0.0:
            out[3, o] = (bid_volume[i] - ask_volume[i]) / (bid_volume[i] + ask_volume[i])


@kernel
def tape_totals(
    timestamp: Ints, side: Floats, amount: Floats, quote: Floats, state: State(TOTALS_STATE), out: OutFloats
) -> None:
    """Number of trades and of prints (as bars see them), sums of amount and notional, of all rows so far. k = 4."""
    s = state[0]
    trades, prints, last_time, last_side = s["trades"], s["prints"], s["timestamp"], s["side"]
    total, total_low, notional, notional_low = s["amount"], s["amountlow"], s["quote"], s["quotelow"]
    for i in range(timestamp.shape[0]):
        alike = last_side == side[i] or (math.isnan(last_side) and math.isnan(side[i]))
        if trades == 0 or not alike or timestamp[i] != last_time or last_time == UNKNOWN:
            prints += 1
        trades, last_time, last_side = trades + 1, timestamp[i], side[i]
        total, total_low = add_exactly(total, total_low, amount[i])
        notional, notional_low = add_exactly(notional, notional_low, quote[i])
    s["trades"], s["prints"], s["timestamp"], s["side"] = trades, prints, last_time, last_side
    s["amount"], s["amountlow"], s["quote"], s["quotelow"] = total, total_low, notional, notional_low
    out[0], out[1], out[2], out[3] = float(trades), float(prints), total + total_low, notional + notional_low
