"""Where bars end: the rules of FEATURES.md section 7.

A rule answers one question for each row, in order: does a bar end before it? ``out`` is (2, n): the index of the
reason in the rule's ``reasons`` where one does, else NaN; and the threshold as it stands then. What a bar holds is
another matter (``kernels/barsums.py``). The day's end is asked about with one more row that no bar holds: its
``capture_ts`` is the end, everything else is unknown.
"""

import math

import numpy as np

from tickstate.kernels._jit import Block, Float, Floats, Int, Ints, State, helper, kernel

UNKNOWN = -(1 << 63)
"""A timestamp that is null: equal to no other."""
CLOCK_STATE = np.dtype([("known", "i8"), ("until", "i8")])
SUM_STATE = np.dtype([("total", "f8"), ("low", "f8")])
PRINT_STATE = np.dtype([
    ("known", "i8"), ("timestamp", "i8"), ("side", "f8"), ("sign", "f8"), ("price", "f8"), ("weight", "f8"),
    ("first", "f8"), ("second", "f8"), ("count", "f8"),
    ("buys", "f8"), ("sells", "f8"), ("prints", "i8"), ("bars", "i8"),
])  # fmt: skip
"""The open print; the decayed sums behind the expectations and of their weights; the open bar, and bars before it."""
THRESHOLD, WARMUP, CAP = range(3)
LONGEST = 3
"""A bar closes at this many times the expected number of prints."""


@helper
def add_exactly(total, low, x):
    """A sum as two doubles, ``total + low``: what rounding takes from one goes into the other.

    Knuth's TwoSum (TAOCP 4.2.2), no branch, so that several sums run side by side. ``total + low`` is the exactly
    rounded sum of n values of one sign unless that lies within n^2 2^-106 of it from halfway between two doubles.
    """
    new = total + x
    back = new - total
    return new, low + ((total - (new - back)) + (x - back))


@kernel
def cut_by_time(capture_ts: Ints, state: State(CLOCK_STATE), width: Int, out: Block) -> None:
    """Bars of ``width`` us aligned to the epoch: one ends where a row lies in a later interval. Threshold in s."""
    # the end of the open interval is kept: a division a row took three times as long
    known, until = state[0]["known"], state[0]["until"]
    for i in range(capture_ts.shape[0]):
        out[0, i] = math.nan
        out[1, i] = width / 1e6
        if known == 0 or capture_ts[i] >= until:
            out[0, i] = 0.0 if known != 0 else math.nan
            known, until = 1, (capture_ts[i] // width + 1) * width
    state[0]["known"], state[0]["until"] = known, until


@kernel
def cut_by_sum(weight: Floats, state: State(SUM_STATE), threshold: Float, out: Block) -> None:
    """A bar ends with the row by which the exactly rounded sum of ``weight`` reaches ``threshold``."""
    total, low = state[0]["total"], state[0]["low"]
    for i in range(weight.shape[0]):
        out[0, i] = math.nan
        out[1, i] = threshold
        if total + low >= threshold:
            out[0, i] = THRESHOLD
            total, low = 0.0, 0.0
        total, low = add_exactly(total, low, weight[i])
    state[0]["total"], state[0]["low"] = total, low


@kernel
def cut_by_count(capture_ts: Ints, state: State(SUM_STATE), threshold: Float, out: Block) -> None:
    """A bar ends with its ``threshold``-th row."""
    count = state[0]["total"]
    for i in range(capture_ts.shape[0]):
        out[0, i] = THRESHOLD if count >= threshold else math.nan
        out[1, i] = threshold
        count = 1.0 if count >= threshold else count + 1.0
    state[0]["total"] = count


@helper
def sign_of(side, price, last_price, last_sign):
    """+1 buy, -1 sell; without a side the tick rule: where the price went, else as before."""
    if not math.isnan(side):
        return side
    if price > last_price:
        return 1.0
    if price < last_price:
        return -1.0
    return last_sign


@helper
def close_code(bars, prints, expected, is_met):
    """Why a bar ends with this print, or NaN."""
    if bars == 0:
        return float(WARMUP) if prints == expected else math.nan
    if is_met:
        return float(THRESHOLD)
    return float(CAP) if prints >= LONGEST * expected else math.nan


@helper
def imbalance_threshold(expected, signed, squared, count):
    """max(T abs(E[s]), sqrt(T E[w^2])), NaN before the day's first print."""
    return max(expected * abs(signed / count), math.sqrt(expected * (squared / count)))


@kernel
def cut_by_imbalance(
    timestamp: Ints, side: Floats, price: Floats, weight: Floats, state: State(PRINT_STATE),
    expected: Int, merge: Int, counted: Int, out: Block,
) -> None:  # fmt: skip
    """abs(theta) >= max(T abs(E[s]), sqrt(T E[w^2])), T = ``expected`` prints; Lopez de Prado 2018, ch. 2, stabilised.

    ``weight`` is summed over a print, or 1 a print where ``counted``; without ``merge`` each trade is a print.
    E are exponentially weighted means over the day's earlier prints, alpha = 2 / (T + 1), weights normalised.
    theta = buys - sells of the open bar.
    """
    s = state[0]
    known, last_time, last_side, last_price = s["known"], s["timestamp"], s["side"], s["price"]
    sign, w, signed, squared, count = s["sign"], s["weight"], s["first"], s["second"], s["count"]
    theta, prints, bars = s["buys"] - s["sells"], s["prints"], s["bars"]
    keep = 1.0 - 2.0 / (expected + 1.0)
    for i in range(timestamp.shape[0]):
        out[0, i] = math.nan
        same = last_side == side[i] or (math.isnan(last_side) and math.isnan(side[i]))
        if merge != 0 and known != 0 and timestamp[i] == last_time and timestamp[i] != UNKNOWN and same:
            out[1, i] = math.nan
            w = 1.0 if counted != 0 else w + weight[i]
        else:
            out[1, i] = math.nan
            if known != 0:
                threshold = imbalance_threshold(expected, signed, squared, count)
                theta += sign * w
                prints += 1
                code = close_code(bars, prints, expected, abs(theta) >= threshold)
                out[0, i], out[1, i] = code, threshold
                if not math.isnan(code):
                    theta, prints, bars = 0.0, 0, bars + 1
                signed = signed * keep + sign * w
                squared = squared * keep + w * w
                count = count * keep + 1.0
            sign = sign_of(side[i], price[i], last_price, sign) if known != 0 else first_sign(side[i])
            w = 1.0 if counted != 0 else weight[i]
        known, last_time, last_side, last_price = 1, timestamp[i], side[i], price[i]
    s["known"], s["timestamp"], s["side"], s["price"] = known, last_time, last_side, last_price
    s["sign"], s["weight"], s["first"], s["second"], s["count"] = sign, w, signed, squared, count
    s["buys"], s["sells"], s["prints"], s["bars"] = theta, 0.0, prints, bars


@helper
def first_sign(side):
    """The sign of the day's first print: +1 without a side."""
    return 1.0 if math.isnan(side) else side


@kernel
def cut_by_run(
    timestamp: Ints, side: Floats, price: Floats, weight: Floats, state: State(PRINT_STATE),
    expected: Int, merge: Int, counted: Int, out: Block,
) -> None:  # fmt: skip
    """max(theta_buy, theta_sell) >= T max(E[w 1(buy)], E[w 1(sell)]); all else as ``cut_by_imbalance``."""
    s = state[0]
    known, last_time, last_side, last_price = s["known"], s["timestamp"], s["side"], s["price"]
    sign, w, bought, sold, count = s["sign"], s["weight"], s["first"], s["second"], s["count"]
    buys, sells, prints, bars = s["buys"], s["sells"], s["prints"], s["bars"]
    keep = 1.0 - 2.0 / (expected + 1.0)
    for i in range(timestamp.shape[0]):
        out[0, i] = math.nan
        out[1, i] = math.nan
        same = last_side == side[i] or (math.isnan(last_side) and math.isnan(side[i]))
        if merge != 0 and known != 0 and timestamp[i] == last_time and timestamp[i] != UNKNOWN and same:
            w = 1.0 if counted != 0 else w + weight[i]
        else:
            if known != 0:
                threshold = expected * (max(bought, sold) / count)
                buy, sell = (w, 0.0) if sign > 0.0 else (0.0, w)
                buys += buy
                sells += sell
                prints += 1
                code = close_code(bars, prints, expected, max(buys, sells) >= threshold)
                out[0, i], out[1, i] = code, threshold
                if not math.isnan(code):
                    buys, sells, prints, bars = 0.0, 0.0, 0, bars + 1
                bought = bought * keep + buy
                sold = sold * keep + sell
                count = count * keep + 1.0
            sign = sign_of(side[i], price[i], last_price, sign) if known != 0 else first_sign(side[i])
            w = 1.0 if counted != 0 else weight[i]
        known, last_time, last_side, last_price = 1, timestamp[i], side[i], price[i]
    s["known"], s["timestamp"], s["side"], s["price"] = known, last_time, last_side, last_price
    s["sign"], s["weight"], s["first"], s["second"], s["count"] = sign, w, bought, sold, count
    s["buys"], s["sells"], s["prints"], s["bars"] = buys, sells, prints, bars
