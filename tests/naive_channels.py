"""Slow, obvious, exactly rounded references for FEATURES.md, sections 4 (trades) and 5 (ticker).

Conventions as in naive.py. `trades` and `ticker` take the rows of one lane, in order and without
duplicates. `select` is a set of row numbers: on any other row the window columns, which are slow, are
not computed, and None.
"""

from datetime import UTC, datetime
from math import fsum, log

from naive import (
    SECOND,
    divide,
    first_since_gap,
    imbalance,
    is_number,
    latency_ms,
    mean_of,
    moments,
    row_ids,
    signed_amount,
    table,
    total,
    trade_is_good,
    window,
)

A_TRADE = {"capture_ts": 0, "timestamp": 0, "side": None, "price": 1.0, "amount": 1.0}
A_QUOTE = {"capture_ts": 0, "timestamp": 0, "bid": 1.0, "ask": 2.0, "bid_volume": 1.0, "ask_volume": 1.0}


def calendar(t):
    """Sections 4 and 5: the ISO day of the week, and whether it is a Saturday or Sunday, UTC."""
    day = datetime.fromtimestamp(t // SECOND, UTC).isoweekday()
    return {"day_of_week": day, "is_weekend": day >= 6}


# ---- section 4: trades


def notional(trade, contract_size=1.0, inverse=False):
    """Section 1, Lane facts: (quote, base)."""
    if inverse:
        quote = trade["amount"] * contract_size
        return quote, quote / trade["price"]
    return trade["price"] * trade["amount"] * contract_size, trade["amount"] * contract_size


def trade_windows(times, columns, i, h):
    """Section 4: the window columns at trade i."""
    names = ("amount", "quote_volume", "base", "is_buy", "log_return")
    amount, quote, base, is_buy, returns = (window(times, columns[name], i, h) for name in names)
    return {
        f"volume_{h}s": fsum(amount),
        f"quote_volume_{h}s": fsum(quote),
        f"trade_count_{h}s": len(amount),
        f"vwap_{h}s": fsum(quote) / fsum(base),
        f"buy_ratio_{h}s": divide(sum(is_buy), len(is_buy)),
        f"realized_var_{h}s": total([x * x for x in returns]),
    }


def trades(rows, *, max_staleness=300.0, contract_size=1.0, inverse=False, horizons=(60, 300, 900), select=None):
    """Section 4: every column of a lane's trades."""
    ids = row_ids(rows)
    records = [{"row_id": ids[i], "latency_ms": latency_ms(row)} for i, row in enumerate(rows)]
    valid = [i for i, row in enumerate(rows) if trade_is_good(row)]
    good = [rows[i] for i in valid]
    times = [row["capture_ts"] for row in good]
    first = first_since_gap(times, max_staleness)
    notionals = [notional(row, contract_size, inverse) for row in good]
    columns = {
        "amount": [row["amount"] for row in good],
        "quote_volume": [quote for quote, _ in notionals],
        "base": [base for _, base in notionals],
        "is_buy": [{"buy": 1, "sell": 0}.get(row["side"]) for row in good],
        "signed_volume": [signed_amount(row) for row in good],
        "log_return": [
            log(row["price"] / good[n - 1]["price"]) if first[n] < n else None for n, row in enumerate(good)
        ],
    }
    for n, i in enumerate(valid):
        records[i] |= calendar(times[n])
        for name in ("is_buy", "quote_volume", "signed_volume", "log_return"):
            records[i][name] = columns[name][n]
        for h in horizons if select is None or i in select else ():
            records[i] |= trade_windows(times, columns, n, h)
    whole = [i for i in valid if select is None or i in select]
    return table(records, records[whole[0]] if whole else trades([A_TRADE], horizons=horizons))


# ---- section 5: ticker


def quote_is_good(row):
    """Section 5: both sides finite and > 0, and bid < ask; any other quote is in no window."""
    return all(is_number(p) and p > 0 for p in (row["bid"], row["ask"])) and row["bid"] < row["ask"]


def volume_imbalance(row):
    """Section 5: null if a volume is missing, not finite or negative, or 0 / 0."""
    sizes = row["bid_volume"], row["ask_volume"]
    return imbalance(*sizes) if all(is_number(size) and size >= 0 for size in sizes) else None


def ticker(rows, *, horizons=(60, 300, 900), select=None):
    """Section 5: every column of a lane's ticker."""
    ids = row_ids(rows)
    records = [{"row_id": ids[i], "latency_ms": latency_ms(row)} for i, row in enumerate(rows)]
    valid = [i for i, row in enumerate(rows) if quote_is_good(row)]
    good = [rows[i] for i in valid]
    times = [row["capture_ts"] for row in good]
    mids = [(row["bid"] + row["ask"]) / 2 for row in good]
    spreads = [row["ask"] - row["bid"] for row in good]
    imbalances = [volume_imbalance(row) for row in good]
    for n, i in enumerate(valid):
        records[i] |= {"spread": spreads[n], "mid_price": mids[n], "relative_spread": spreads[n] / mids[n]}
        records[i] |= {"volume_imbalance": imbalances[n]} | calendar(times[n])
        for h in horizons if select is None or i in select else ():
            mean, deviation = moments(window(times, mids, n, h))
            records[i] |= {f"mid_price_mean_{h}s": mean, f"mid_price_std_{h}s": deviation}
            records[i][f"spread_mean_{h}s"] = mean_of(window(times, spreads, n, h))
            records[i][f"vol_imbalance_mean_{h}s"] = mean_of(window(times, imbalances, n, h))
    whole = [i for i in valid if select is None or i in select]
    return table(records, records[whole[0]] if whole else ticker([A_QUOTE], horizons=horizons))
