"""Slow, obvious, exactly rounded references for FEATURES.md, sections 1 and 3 (4 and 5: naive_channels.py).

Nothing of the project is imported and nothing is clever: sums are `math.fsum`, windows are slices of
lists, a comparison that decides is written as the page writes it. A row is a dict, as from
`pyarrow.Table.to_pylist()`, with `capture_ts` in integer microseconds; null is None; `t` and `times` are
microseconds, `h` is seconds. `orderbook` takes the rows of one lane, in order and without duplicates
(`order`, `drop_duplicates`), and returns one list a column.
"""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import exp, fsum, isfinite, isnan, log, sqrt

SECOND = 1_000_000  # microseconds
HOUR, DAY = 3600 * SECOND, 86_400 * SECOND
BANDS = list(pairwise((0, 1, 2, 5, 10, 25, 50)))  # (lo, hi] in bps
BOOK_COLUMNS = "collected_at", "capture_ts", "timestamp", "nonce", "bids", "asks"
TICKER_COLUMNS = "collected_at", "capture_ts", "timestamp", "bid", "ask", "bid_volume", "ask_volume"
A_LEVEL = {"price": 1.0, "size": 1.0}
A_BOOK = {"capture_ts": 0, "timestamp": 0, "bids": [A_LEVEL], "asks": [A_LEVEL | {"price": 2.0}]}


# ---- section 1: order, duplicates, windows, cells


def order(rows):
    """Section 1, Order: by (capture_ts, timestamp, nonce with null as 0), then as given (path, row)."""
    return sorted(rows, key=lambda row: (row["capture_ts"], row["timestamp"], row.get("nonce") or 0))


def drop_duplicates(rows):
    """Section 1, Duplicates: the ordered rows without those that say nothing new.

    Order book and ticker: equal in every contract column to an earlier row of the same capture_ts.
    Trades: the id stands on an earlier trade, itself dropped or not, at most 300 s older.
    """
    kept, seen = [], {}
    for row in rows:
        key, memory = row.get("trade_id"), 300 * SECOND
        if "price" not in row:
            names = BOOK_COLUMNS if "bids" in row else TICKER_COLUMNS
            key, memory = tuple(_comparable(row.get(name)) for name in names), 0
        if key is None or key not in seen or row["capture_ts"] - seen[key] > memory:
            kept.append(row)
        seen[key] = row["capture_ts"]
    return kept


def _comparable(value):
    if isinstance(value, list):
        return tuple(level and (_comparable(level["price"]), _comparable(level["size"])) for level in value)
    return None if isinstance(value, float) and isnan(value) else value  # NaN is null


def row_ids(rows):
    """Section 1: the rows of a partition (a UTC hour) numbered from 0."""
    hours = [row["capture_ts"] // HOUR for row in rows]
    return [i - bisect_left(hours, hour) for i, hour in enumerate(hours)]


def latency_ms(row):
    """Section 3: receipt time minus exchange time."""
    return row["capture_ts"] / 1000 - row["timestamp"]


def window(times, values, i, h):
    """Section 1, Windows: the non-null values of (t - h, t] at row i, which is the last one in it."""
    first = bisect_right(times, times[i] - h * SECOND)
    return [value for value in values[first : i + 1] if value is not None]


def between(times, values, start, end):
    """The values with start < time <= end."""
    return values[bisect_right(times, start) : bisect_right(times, end)]


def cell_sums(times, values):
    """Section 1, Cells: {k: sum of the non-null values with k <= time < k + 1 s}, where there are any."""
    cells = {}
    for t, value in zip(times, values, strict=True):
        if value is not None:
            cells.setdefault(t // SECOND, []).append(value)
    return {k: fsum(cell) for k, cell in cells.items()}


def completed_cells(cells, t, h):
    """Section 1, Cells: at time t, the values of those of the last h completed cells that have one."""
    return [cells[k] for k in range(t // SECOND - h, t // SECOND) if k in cells]


def first_since_gap(times, max_gap):
    """For every row, the index of the first row since the last gap of more than max_gap seconds."""
    first = []
    for i, t in enumerate(times):
        broken = i == 0 or t - times[i - 1] > max_gap * SECOND
        first.append(i if broken else first[-1])
    return first


def history_s(times, first, i, t):
    """Section 1: how full, in seconds, the windows are that end at t, whose last row is i."""
    return min(900.0, (t - times[first[i]]) / SECOND)


def table(records, names):
    """One list a column; null where a record has no value."""
    return {name: [record.get(name) for record in records] for name in names}


# ---- arithmetic


def is_number(value):
    """Neither null nor NaN nor infinite."""
    return value is not None and isfinite(value)


def divide(a, b):
    """a / b, null where either is null or b is 0."""
    return None if a is None or b is None or b == 0 else a / b


def imbalance(bid, ask):
    """(bid - ask) / (bid + ask), null if either is or 0 / 0."""
    return None if bid is None or ask is None else divide(bid - ask, bid + ask)


def total(values):
    """The exactly rounded sum, null of nothing."""
    return fsum(values) if values else None


def mean_of(values):
    """The mean, null of nothing."""
    return fsum(values) / len(values) if values else None


def comoment(x, y):
    """sum((x - mean(x)) * (y - mean(y))) in two passes; the last term undoes the rounding of the means."""
    if min(x) == max(x) or min(y) == max(y):
        return 0.0
    mean_x, mean_y = mean_of(x), mean_of(y)
    dx, dy = [v - mean_x for v in x], [v - mean_y for v in y]
    return fsum(a * b for a, b in zip(dx, dy, strict=True)) - fsum(dx) * fsum(dy) / len(x)


def moments(values):
    """The mean, and the sample standard deviation, null with n < 2."""
    n = len(values)
    return mean_of(values), sqrt(comoment(values, values) / (n - 1)) if n > 1 else None


def regression(x, y, min_n):
    """Least-squares slope of y on x and squared correlation; null with n < min_n or a variance of 0."""
    if len(x) < min_n:
        return None, None
    xx, xy, yy = comoment(x, x), comoment(x, y), comoment(y, y)
    slope = divide(xy, xx)
    return slope, None if slope is None else divide(slope * xy, yy)


# ---- section 1: book levels


def clean_levels(levels):
    """Section 1, Book levels: (price, size) of every level but those of size 0; a null list is empty."""
    pairs = [(None, None) if level is None else (level["price"], level["size"]) for level in levels or []]
    return [(price, size) for price, size in pairs if size != 0]


def book_flag(bids, asks):
    """Section 1: the first reason, over all levels, why a snapshot is not valid, else `ok`."""
    bids, asks = clean_levels(bids), clean_levels(asks)
    if not bids and not asks:
        return "empty"
    if not bids or not asks:
        return "one_sided"
    for price, size in bids + asks:
        if not is_number(price) or not is_number(size) or price <= 0 or size < 0:
            return "bad_value"
    if any(b <= below for (b, _), (below, _) in pairwise(bids)):
        return "unsorted"
    if any(a >= above for (a, _), (above, _) in pairwise(asks)):
        return "unsorted"
    if bids[0][0] > asks[0][0]:
        return "crossed"
    return "locked" if bids[0][0] == asks[0][0] else "ok"


# ---- sections 3.1 to 3.3: this snapshot and the one before


@dataclass
class Snapshot:
    """A valid snapshot: levels are (price, size), best first, at most `depth`."""

    t: int
    bids: list
    asks: list
    dt: float | None = None  # seconds since the previous snapshot, null without one
    velocity: float | None = None

    @property
    def mid(self):
        return (self.bids[0][0] + self.asks[0][0]) / 2


def book_levels(book, depth):
    """Section 3.1: book levels."""
    columns = {}
    for side, levels in (("bid", book.bids), ("ask", book.asks)):
        for i in range(depth):
            price, size = levels[i] if i < len(levels) else (None, None)
            columns |= {f"{side}_price_L{i}": price, f"{side}_size_L{i}": size}
    return columns


def side_structure(side, levels, m, decay_bps):
    """Section 3.2: the columns of one side."""
    prices, sizes = zip(*levels, strict=True)
    d = [(1e4 * abs(price - m)) / m for price in prices]
    depth, near, five = fsum(sizes), fsum(sizes[:5]), len(levels) >= 5
    columns = {
        f"total_{side}_depth": depth,
        f"{side}_reach_bps": d[-1],
        f"vwap_{side}_5": fsum(price * size for price, size in levels[:5]) / near,
        f"smart_{side}_depth": fsum(size * exp(-x / decay_bps) for size, x in zip(sizes, d, strict=True)),
        f"{side}_slope_simple": abs(prices[0] - prices[4]) / near if five else None,
        f"{side}_slope_regression": regression(d, [fsum(sizes[: i + 1]) for i in range(len(d))], 3)[0],
        f"{side}_depth_decay_5": sizes[4] / sizes[0] if five else None,
        f"{side}_concentration": fsum((size / depth) ** 2 for size in sizes),
    }
    for lo, hi in BANDS:
        inside = [size for size, x in zip(sizes, d, strict=True) if lo < x <= hi or lo == x == 0]
        columns[f"{side}_vol_band_{lo}_{hi}bps"] = fsum(inside) if d[-1] > lo else None
    return columns


def structure(book, decay_bps=2.0):
    """Section 3.2: structure."""
    (b, q), (a, r), m = book.bids[0], book.asks[0], book.mid
    both, spread = book.bids + book.asks, a - b
    bid = side_structure("bid", book.bids, m, decay_bps)
    ask = side_structure("ask", book.asks, m, decay_bps)
    weighted_mid = (q * a + r * b) / (q + r)
    cog = fsum(price * size for price, size in both) / fsum(size for _, size in both)
    decays = [bid["bid_depth_decay_5"], ask["ask_depth_decay_5"]]
    columns = bid | ask
    columns |= {"mid_price": m, "spread": spread, "relative_spread": spread / m}
    columns |= {"weighted_mid": weighted_mid, "weighted_mid_minus_mid": weighted_mid - m}
    columns |= {"center_of_gravity": cog, "cog_vs_mid": 1e4 * (cog - m) / m}
    columns["depth_5bps"] = fsum(size for price, size in both if (1e4 * abs(price - m)) / m <= 5)
    columns["vwap_spread"] = ask["vwap_ask_5"] - bid["vwap_bid_5"]
    columns["avg_depth_decay_5"] = None if None in decays else (decays[0] + decays[1]) / 2
    columns["total_imbalance"] = imbalance(bid["total_bid_depth"], ask["total_ask_depth"])
    columns["smart_depth_imbalance"] = imbalance(bid["smart_bid_depth"], ask["smart_ask_depth"])
    for lo, hi in BANDS:
        band = f"vol_band_{lo}_{hi}bps"
        columns[f"imb_band_{lo}_{hi}bps"] = imbalance(bid[f"bid_{band}"], ask[f"ask_{band}"])
    for n in (1, 3, 5, 10):
        bn, an = (fsum(size for _, size in side[:n]) for side in (book.bids, book.asks))
        columns[f"depth_imbalance_{n}"] = imbalance(bn, an)
    for n in (3, 6):
        columns[f"spread_per_depth_{n}"] = spread / fsum(size for _, size in book.bids[:n] + book.asks[:n])
    return columns


def ofi_step(better, level, before):
    """Section 3.3: e of one level of a side; `better` is +1 where a higher price is (bids), -1 for asks."""
    (price, size), (price_before, size_before) = level, before
    if price == price_before:
        return size - size_before
    return size if better * (price - price_before) > 0 else -size_before


def step(now, before):
    """Section 3.3, null without a snapshot before; fills in `dt` and `velocity` of `now`."""
    columns = dict.fromkeys(["log_return", "mid_velocity", "mid_accel", "ofi", "mlofi"])
    columns |= {f"ofi_L{i}": None for i in range(1, 10)}
    if before is None:
        return columns
    now.dt = (now.t - before.t) / SECOND
    now.velocity = divide(now.mid - before.mid, now.dt)
    columns |= {"log_return": log(now.mid / before.mid), "mid_velocity": now.velocity}
    if now.velocity is not None and before.velocity is not None:
        columns["mid_accel"] = (now.velocity - before.velocity) / ((now.dt + before.dt) / 2)
    e_bid = [ofi_step(+1, level, old) for level, old in zip(now.bids[:10], before.bids, strict=False)]
    e_ask = [ofi_step(-1, level, old) for level, old in zip(now.asks[:10], before.asks, strict=False)]
    for i, (bid, ask) in enumerate(zip(e_bid, e_ask, strict=False)):
        columns[f"ofi_L{i}" if i else "ofi"] = bid - ask
    bids, asks = (fsum(exp(-0.5 * i) * e for i, e in enumerate(side)) for side in (e_bid, e_ask))
    return columns | {"mlofi": bids - asks}


# ---- sections 3.4 and 3.5: windows, regime, impact, toxicity


def book_windows(times, columns, return_cells, first, i, h):
    """Section 3.4 at snapshot i, the columns of the book; `first` as of first_since_gap."""
    returns = window(times, columns["log_return"], i, h)
    grid = completed_cells(return_cells, times[i], h)
    then, mid = bisect_right(times, times[i] - h * SECOND) - 1, columns["mid_price"]
    return {
        f"ofi_sum_{h}s": total(window(times, columns["ofi"], i, h)),
        f"mlofi_sum_{h}s": total(window(times, columns["mlofi"], i, h)),
        f"ret_{h}s": log(mid[i] / mid[then]) if then >= first[i] else None,
        f"rv_{h}s": sqrt(fsum(x * x for x in returns)) if returns else None,
        f"rv_1s_{h}s": sqrt(fsum(x * x for x in grid)) if grid else None,
        f"mean_relative_spread_{h}s": mean_of(window(times, columns["relative_spread"], i, h)),
    }


def trade_is_good(trade):
    """Section 4: price and amount finite and > 0; any other trade is in no window, here or in section 3."""
    return all(is_number(value) and value > 0 for value in (trade["price"], trade["amount"]))


def signed_amount(trade):
    """+ amount of a buy, - amount of a sell, null without a side."""
    return {"buy": trade["amount"], "sell": -trade["amount"]}.get(trade["side"])


def trade_windows(trades, h):
    """Section 3.4, the columns of trades, from those in the window."""
    buy = fsum(trade["amount"] for trade in trades if trade["side"] == "buy")
    sell = fsum(trade["amount"] for trade in trades if trade["side"] == "sell")
    return {
        f"trade_vol_{h}s": fsum(trade["amount"] for trade in trades),
        f"trade_count_{h}s": len(trades),
        f"signed_vol_{h}s": fsum(signed_amount(trade) or 0.0 for trade in trades),
        f"tfi_{h}s": imbalance(buy, sell),
    }


def spread_percentiles(times, spreads):
    """Section 3.5: for every snapshot the share of its 300 s window with a smaller spread, null below 30."""
    ranked, oldest, shares = [], 0, []
    for t, spread in zip(times, spreads, strict=True):
        insort(ranked, spread)
        while times[oldest] <= t - 300 * SECOND:
            ranked.pop(bisect_left(ranked, spreads[oldest]))
            oldest += 1
        smaller = bisect_left(ranked, spread * (1 - 1e-6))
        shares.append(smaller / len(ranked) if len(ranked) >= 30 else None)
    return shares


def spread_regime(percentile):
    """Section 3.5: spread_regime."""
    if percentile is None:
        return None
    return "tight" if percentile <= 0.2 else "wide" if percentile >= 0.8 else "normal"


def regime_fractions(times, regimes, i, max_staleness):
    """Section 3.5: of the time of (t - 300, t] that counts, the shares in the regimes tight and wide."""
    start, spent = times[i] - 300 * SECOND, {"tight": 0, "normal": 0, "wide": 0}
    for j in range(max(0, bisect_right(times, start) - 1), i):
        if regimes[j] is not None and times[j + 1] - times[j] <= max_staleness * SECOND:
            spent[regimes[j]] += times[j + 1] - max(times[j], start)
    counted = sum(spent.values())
    return {f"spread_regime_{name}_frac": divide(spent[name], counted) for name in ("tight", "wide")}


def impact_cells(times, x, y):
    """Section 3.5: {k: (sum of x, sum of y)} over the rows of cell k where both are not null."""
    both = [(t, *pair) for t, *pair in zip(times, x, y, strict=True) if None not in pair]
    x_cells = cell_sums([t for t, _, _ in both], [x for _, x, _ in both])
    y_cells = cell_sums([t for t, _, _ in both], [y for _, _, y in both])
    return {k: (x_cells[k], y_cells[k]) for k in x_cells}


def impact(name, cells, t):
    """Section 3.5, ofi_beta and kyle_lambda: y regressed on x over the last 300 completed cells."""
    pairs = completed_cells(cells, t, 300)
    slope, r2 = regression([x for x, _ in pairs], [y for _, y in pairs], 30)
    return {name: slope, f"{name}_r2": r2}


def book_moments(times, columns, i):
    """Section 3.5: means and deviations over 60 s, and the deviation of depth_5bps over 300 s."""
    result = {"depth_5bps_sigma": moments(window(times, columns["depth_5bps"], i, 300))[1]}
    names = {"bid_slope_regression": "bid_slope", "ask_slope_regression": "ask_slope"}
    for column, name in (names | {"cog_vs_mid": "cog_momentum"}).items():
        mean, deviation = moments(window(times, columns[column], i, 60))
        result |= {f"{name}_mean_60s": mean, f"{name}_std_60s": deviation}
    return result


def full_buckets(trades, bucket_volume):
    """Section 3.5, VPIN: (time, abs(buy - sell) / V) of every full bucket, in exact fractions."""
    full, day = [], None
    for trade in trades:
        if trade["capture_ts"] // DAY != day:
            day, filled, signed = trade["capture_ts"] // DAY, Fraction(0), Fraction(0)
        rest, side = Fraction(trade["amount"]), {"buy": 1, "sell": -1}.get(trade["side"], 0)
        while rest > 0:
            part = min(rest, Fraction(bucket_volume) - filled)
            rest, filled, signed = rest - part, filled + part, signed + side * part
            if filled >= bucket_volume * (1 - 1e-9):
                full.append((trade["capture_ts"], abs(signed) / Fraction(bucket_volume)))
                filled, signed = Fraction(0), Fraction(0)
    return full


def vpin(buckets, t, vpin_window, min_buckets):
    """Section 3.5, VPIN at t, over the last full buckets of the UTC day of t and the day before."""
    used = [share for time, share in buckets if (t // DAY - 1) * DAY <= time <= t][-vpin_window:]
    return {
        "vpin": float(sum(used) / len(used)) if len(used) >= min_buckets else None,
        "vpin_buckets": len(used),
    }


# ---- section 3: the channel


def orderbook(
    rows,
    trades=None,
    *,
    depth=20,
    max_staleness=300.0,
    trades_max_gap=300.0,
    decay_bps=2.0,
    bucket_volume=None,
    vpin_window=50,
    min_buckets=10,
    horizons=(5, 15, 60, 300, 900),
    contract_size=1.0,
    inverse=False,
    select=None,
):
    """Section 3: every column of a lane's order book; without `trades`, none that is based on them.

    `select` is a set of row numbers: on any other row the columns of 3.4 and 3.5, which are slow, are not
    computed, and None. `contract_size` and `inverse` are lane facts that no column of section 3 depends on.
    """
    records = [{"row_id": row_id} for row_id in row_ids(rows)]
    for record, row in zip(records, rows, strict=True):
        record |= {"book_flag": book_flag(row["bids"], row["asks"]), "latency_ms": latency_ms(row)}
    valid = [i for i, record in enumerate(records) if record["book_flag"] == "ok"]
    times = [rows[i]["capture_ts"] for i in valid]
    first = first_since_gap(times, max_staleness)
    tape = [trade for trade in trades or [] if trade_is_good(trade)]
    tape_times = [trade["capture_ts"] for trade in tape]
    tape_first = first_since_gap(tape_times, trades_max_gap)

    def last_trade(t):
        """Section 1, When trades are unknown: the index of the last trade at t, null if not alive."""
        last = bisect_right(tape_times, t) - 1
        return last if last >= 0 and t - tape_times[last] <= trades_max_gap * SECOND else None

    now = None
    for n, i in enumerate(valid):  # 3.1 to 3.3
        t, before = times[n], now if first[n] < n else None
        now = Snapshot(t, clean_levels(rows[i]["bids"])[:depth], clean_levels(rows[i]["asks"])[:depth])
        records[i] |= book_levels(now, depth) | structure(now, decay_bps) | step(now, before)
        records[i]["book_history_s"] = history_s(times, first, n, t)
        if trades is not None:
            last, signed = last_trade(t), None
            if last is not None and before is not None:
                signed = fsum(signed_amount(one) or 0.0 for one in between(tape_times, tape, before.t, t))
            records[i] |= {
                "trade_age_s": None if last is None else (t - tape_times[last]) / SECOND,
                "trade_history_s": None if last is None else history_s(tape_times, tape_first, last, t),
                "signed_trade_vol": signed,
            }

    columns = table([records[i] for i in valid], records[valid[0]] if valid else {})
    returns, none = columns.get("log_return", []), [None] * len(valid)
    return_cells = cell_sums(times, returns)
    ofi_cells = impact_cells(times, columns.get("ofi", none), returns)
    flow_cells = impact_cells(times, columns.get("signed_trade_vol", none), returns)
    percentiles = spread_percentiles(times, columns.get("spread", []))
    regimes = [spread_regime(percentile) for percentile in percentiles]
    buckets = full_buckets(tape, bucket_volume) if bucket_volume else []
    for n, i in enumerate(valid):  # 3.4 and 3.5
        if select is not None and i not in select:
            continue
        t, record = times[n], records[i]
        record |= {"spread_percentile": percentiles[n], "spread_regime": regimes[n]}
        record |= regime_fractions(times, regimes, n, max_staleness)
        record |= impact("ofi_beta", ofi_cells, t) | book_moments(times, columns, n)
        for h in horizons:
            record |= book_windows(times, columns, return_cells, first, n, h)
        if trades is not None:
            based = impact("kyle_lambda", flow_cells, t) | {"vpin": None, "vpin_buckets": None}
            if bucket_volume:
                based |= vpin(buckets, t, vpin_window, min_buckets)
            for h in horizons:
                based |= trade_windows(between(tape_times, tape, t - h * SECOND, t), h)
            record |= based if last_trade(t) is not None else dict.fromkeys(based)

    whole = [i for i in valid if select is None or i in select]
    if whole:
        return table(records, records[whole[0]])
    return table(records, orderbook([A_BOOK], None if trades is None else [], depth=depth, horizons=horizons))
