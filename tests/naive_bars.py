"""Bars, slow and obvious: FEATURES.md section 7 over lists of rows of silver. No kernel is imported.

A row is a dict of silver columns, ``capture_ts`` in microseconds, ``side`` +1, -1 or None; rows that no bar holds are
left out before. A bar is (rows, reason, threshold, what showed its end: capture_ts of a row, or the day's end).
"""

from __future__ import annotations

import math
from itertools import groupby

SECOND = 1_000_000
DAY = 86_400 * SECOND


def time_bars(rows, seconds, end):
    width = seconds * SECOND
    grouped = [list(g) for _, g in groupby(rows, key=lambda r: r["capture_ts"] // width)]
    return [(g, "time", float(seconds), (g[0]["capture_ts"] // width + 1) * width) for g in grouped]


def sum_bars(rows, weight, threshold, end):
    """Tick (``weight`` None), volume and dollar bars."""
    found, open_ = [], []
    for row in rows:
        open_.append(row)
        total = len(open_) if weight is None else math.fsum(r[weight] for r in open_)
        if total >= threshold:
            found.append((open_, "threshold", threshold, row["capture_ts"]))
            open_ = []
    return [*found, *([(open_, "day_end", threshold, end)] if open_ else [])]


def prints_of(rows, merge=True):
    """Fills of one order, taken together."""
    found = []
    for row in rows:
        last = found[-1][-1] if found else None
        same = last is not None and row["timestamp"] is not None and merge
        if same and (last["timestamp"], last["side"]) == (row["timestamp"], row["side"]):
            found[-1].append(row)
        else:
            found.append([row])
    return found


def signs_of(prints):
    found = []
    for i, fills in enumerate(prints):
        side = fills[0]["side"]
        if side is None:
            move = 0 if i == 0 else fills[0]["price"] - prints[i - 1][-1]["price"]
            side = 1.0 if i == 0 else math.copysign(1.0, move) if move else found[-1]
        found.append(side)
    return found


def expectations(values, span):
    """Before each value, pandas' ``ewm(span=span, adjust=True).mean()`` of the earlier ones; None of none."""
    found, keep = [], 1 - 2 / (span + 1)
    for i in range(len(values)):
        weights = [keep**k for k in range(i - 1, -1, -1)]
        found.append(
            math.fsum(w * v for w, v in zip(weights, values, strict=False)) / math.fsum(weights) if i else None
        )
    return found


def thresholds(kind, signs, sizes, expected, means):
    """The threshold that each print meets, None for the first."""
    if kind == "imbalance":
        flow = means([b * w for b, w in zip(signs, sizes, strict=True)], expected)
        square = means([w * w for w in sizes], expected)
        both = zip(flow, square, strict=True)
        return [None if f is None else max(expected * abs(f), math.sqrt(expected * q)) for f, q in both]
    sides = [[w if b == s else 0.0 for b, w in zip(signs, sizes, strict=True)] for s in (1, -1)]
    both = zip(*(means(side, expected) for side in sides), strict=True)
    return [None if buy is None else expected * max(buy, sell) for buy, sell in both]


def print_bars(rows, kind, weight, expected, end, merge=True, means=expectations):
    """Imbalance and run bars; ``weight`` None counts prints; ``means`` gives the expectations before each print."""
    prints = prints_of(rows, merge)
    signs = signs_of(prints)
    sizes = [1.0 if weight is None else math.fsum(r[weight] for r in fills) for fills in prints]
    limits = thresholds(kind, signs, sizes, expected, means)
    found, begin, threshold = [], 0, None
    for i in range(len(prints)):
        bar, threshold = list(zip(signs[begin : i + 1], sizes[begin : i + 1], strict=True)), limits[i]
        if kind == "imbalance":
            value = abs(math.fsum(b * w for b, w in bar))
        else:
            value = max(math.fsum(w for b, w in bar if b == s) for s in (1, -1))
        n = i + 1 - begin
        if not found:
            reason = "warmup" if n == expected else None
        else:
            met = value >= threshold
            reason = "threshold" if met else "cap" if n >= 3 * expected else None
        if reason is not None:
            fills = [r for p in prints[begin : i + 1] for r in p]
            shown = prints[i + 1][0]["capture_ts"] if i + 1 < len(prints) else end
            found.append((fills, reason, threshold, shown if merge else fills[-1]["capture_ts"]))
            begin = i + 1
    rest = [r for p in prints[begin:] for r in p]
    return [*found, *([(rest, "day_end", threshold, end)] if rest else [])]


def fold(rows, name, how):
    values = [r[name] for r in rows if r[name] is not None]
    if not values:
        return None
    if how == "mean":
        return math.fsum(values) / len(values)
    return math.fsum(v * v for v in values) if how == "squares" else math.fsum(values)


def prices(rows, name):
    p = [r[name] for r in rows]
    found = {"open": p[0], "high": max(p), "low": min(p), "close": p[-1]}
    return found | {"return": p[-1] / p[0] - 1, "range": (max(p) - min(p)) / p[0]}


def trade_columns(rows):
    volume = {s: math.fsum(r["amount"] for r in rows if r["side"] == s) for s in (1.0, -1.0)}
    both = volume[1.0] + volume[-1.0]
    found = {
        "trade_count": len(rows), "volume": fold(rows, "amount", "sum"),
        "quote_volume": fold(rows, "quote_volume", "sum"), "buy_volume": volume[1.0], "sell_volume": volume[-1.0],
        "trade_imbalance": (volume[1.0] - volume[-1.0]) / both if both else None,
        "realized_variance": fold(rows, "log_return", "squares"), "log_return_cc": fold(rows, "log_return", "sum"),
        "vwap": fold(rows, "quote_volume", "sum") / fold(rows, "base", "sum"),
    }  # fmt: skip
    return found | prices(rows, "price")


def quote_columns(rows):
    means = {f"mean_{n}": fold(rows, n, "mean") for n in ("spread", "relative_spread", "volume_imbalance")}
    return {"tick_count": len(rows)} | means | prices(rows, "mid_price")


BOOK_MEANS = {
    "mean_spread": "spread", "mean_relative_spread": "relative_spread", "mean_weighted_mid": "weighted_mid",
    "mean_weighted_mid_minus_mid": "weighted_mid_minus_mid", "mean_depth_imbalance_1": "depth_imbalance_1",
    "mean_total_imbalance": "total_imbalance", "mean_bid_depth": "total_bid_depth", "mean_ask_depth": "total_ask_depth",
    "mean_smart_depth_imbalance": "smart_depth_imbalance",
}  # fmt: skip


def book_columns(rows, bar_end, max_staleness=300.0):
    found = {"snapshot_count": len(rows)} | {n: fold(rows, of, "mean") for n, of in BOOK_MEANS.items()}
    found |= {f"sum_{n}": fold(rows, n, "sum") for n in ("ofi", "mlofi")}
    found |= {"realized_variance": fold(rows, "log_return", "squares")}
    found |= {"log_return_cc": fold(rows, "log_return", "sum")}
    ends = [r["capture_ts"] for r in rows[1:]] + [bar_end]
    stretches = [(r["spread"], end - r["capture_ts"]) for r, end in zip(rows, ends, strict=True)]
    counted = [(s, t) for s, t in stretches if t <= max_staleness * SECOND]
    covered = sum(t for _, t in counted)
    found["covered_sec"] = covered / SECOND
    found["twa_spread"] = math.fsum(s * t for s, t in counted) / covered if covered else None
    cells = [fold(list(g), "log_return", "sum") for _, g in groupby(rows, key=lambda r: r["capture_ts"] // SECOND)]
    cells = [c for c in cells if c is not None]
    found["realized_variance_1s"] = math.fsum(c * c for c in cells) if cells else None
    known = cells and covered
    annual = math.sqrt(found["realized_variance_1s"] * 31_536_000 / found["covered_sec"]) if known else None
    return found | {"annualized_vol": annual} | prices(rows, "mid_price")
