"""A row-at-a-time processor of order books and trades, as such systems are commonly written: dicts in, a dict out.

Every default order-book column but those of VPIN, which need a bucket's volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa

from benchmarks.deques import (
    SECOND,
    CellRegression,
    CellsAnew,
    CellVolatility,
    Lagged,
    MomentsAnew,
    RollingMoments,
    RollingRank,
    RollingShares,
    RollingSum,
    SumAnew,
    TradesAnew,
    TradeWindow,
)

HORIZONS = (5, 15, 60, 300, 900)
BANDS = tuple(pairwise((0, 1, 2, 5, 10, 25, 50)))
WEIGHTS = tuple(math.exp(-0.5 * i) for i in range(10))
DEPTH, STALE = 20, 300 * SECOND
Level = dict[str, float]
Row = dict[str, Any]


def imbalance(bid: float | None, ask: float | None) -> float | None:
    if bid is None or ask is None or bid + ask == 0:
        return None
    return (bid - ask) / (bid + ask)


def is_valid(bids: list[Level], asks: list[Level]) -> bool:
    """Whether a snapshot is a book: both sides, in order, not crossed, no bad number."""
    if not bids or not asks or bids[0]["price"] >= asks[0]["price"]:
        return False
    before = math.inf
    for level in bids:
        price = level["price"]
        if not (0.0 < price < before and 0.0 < level["size"] < math.inf):
            return False
        before = price
    before = 0.0
    for level in asks:
        price = level["price"]
        if not (before < price < math.inf and 0.0 < level["size"] < math.inf):
            return False
        before = price
    return True


def slope_of(distances: list[float], sizes: list[float]) -> float | None:
    """Least-squares slope of cumulative size on distance."""
    n = len(sizes)
    if n < 3:
        return None
    total, depths = 0.0, []
    for size in sizes:
        total += size
        depths.append(total)
    mean_x, mean_y = sum(distances) / n, sum(depths) / n
    xx = xy = 0.0
    for x, y in zip(distances, depths, strict=True):
        dx = x - mean_x
        xx += dx * dx
        xy += dx * (y - mean_y)
    return xy / xx if xx else None


def side_columns(side: str, prices: list[float], sizes: list[float], m: float, out: Row) -> list[float]:
    """What one side of a book says; returns its distances from the mid in bps."""
    distances = [1e4 * abs(price - m) / m for price in prices]
    depth, near, reach = sum(sizes), sum(sizes[:5]), distances[-1]
    out[f"total_{side}_depth"] = depth
    out[f"{side}_reach_bps"] = reach
    out[f"vwap_{side}_5"] = sum([p * s for p, s in zip(prices[:5], sizes, strict=False)]) / near
    out[f"smart_{side}_depth"] = sum([s * math.exp(-d / 2.0) for s, d in zip(sizes, distances, strict=True)])
    five = len(sizes) >= 5
    out[f"{side}_slope_simple"] = abs(prices[0] - prices[4]) / near if five else None
    out[f"{side}_slope_regression"] = slope_of(distances, sizes)
    out[f"{side}_depth_decay_5"] = sizes[4] / sizes[0] if five else None
    out[f"{side}_concentration"] = sum([s * s for s in sizes]) / (depth * depth)
    bands, band = [0.0] * len(BANDS), 0
    for size, d in zip(sizes, distances, strict=True):
        while band < len(BANDS) and d > BANDS[band][1]:
            band += 1
        if band == len(BANDS):
            break
        bands[band] += size
    for (lo, hi), found in zip(BANDS, bands, strict=True):
        out[f"{side}_vol_band_{lo}_{hi}bps"] = found if reach > lo else None
    return distances


class Processor:
    """One lane; ``update`` takes a snapshot and the trades since the last one.

    ``anew``: windows are summed anew at every row, so that they do not drift.
    """

    def __init__(self, anew: bool = False) -> None:
        sums, moments = (SumAnew, MomentsAnew) if anew else (RollingSum, RollingMoments)
        trades, volatility = (TradesAnew, CellsAnew) if anew else (TradeWindow, CellVolatility)
        self.before: tuple[Any, ...] | None = None
        self.first = self.first_trade = self.last_trade = None
        self.sums = {
            name: [sums(h) for h in HORIZONS] for name in ("ofi", "mlofi", "rv", "spread")
        }  # fmt: skip
        self.lagged = [Lagged(h) for h in HORIZONS]
        self.trades = [trades(h) for h in HORIZONS]
        self.cell, self.in_cell = None, None
        self.volatility = [volatility(h) for h in HORIZONS]
        self.rank, self.shares = RollingRank(300, 30), RollingShares(300, STALE)
        self.ofi_beta, self.kyle = CellRegression(300, 30), CellRegression(300, 30)
        self.moments = {name: moments(60) for name in ("bid_slope", "ask_slope", "cog_momentum")}
        self.depth_sigma = moments(300)

    def update(self, row: Row, trades: list[Row]) -> Row:
        t, bids, asks = row["capture_ts"], row["bids"], row["asks"]
        out: Row = {"capture_ts": t}
        signed = self._take(trades)
        if not is_valid(bids, asks):
            return out
        bid_prices, bid_sizes = [x["price"] for x in bids[:DEPTH]], [x["size"] for x in bids[:DEPTH]]
        ask_prices, ask_sizes = [x["price"] for x in asks[:DEPTH]], [x["size"] for x in asks[:DEPTH]]
        book = (bid_prices, bid_sizes, ask_prices, ask_sizes)
        self._structure(*book, out)
        self._step(t, *book, out)
        self._windows(t, out)
        self._of_trades(t, signed, out)
        self._impact(t, out)
        self.before = (t, out["mid_price"], out["mid_velocity"], *book, self.before[0] if self.before else None)
        return out

    def _take(self, trades: list[Row]) -> float:
        signed = 0.0
        for trade in trades:
            t, amount, side = trade["capture_ts"], trade["amount"], trade["side"]
            if self.last_trade is None or t - self.last_trade > STALE:
                self.first_trade = t
            self.last_trade = t
            signed += amount if side == "buy" else -amount if side == "sell" else 0.0
            for window in self.trades:
                window.add(t, amount, side)
        return signed

    def _structure(
        self, bid_prices: list[float], bid_sizes: list[float], ask_prices: list[float], ask_sizes: list[float], out: Row
    ) -> None:  # fmt: skip
        b, q, a, r = bid_prices[0], bid_sizes[0], ask_prices[0], ask_sizes[0]
        m, spread = (b + a) / 2, a - b
        weighted = (q * a + r * b) / (q + r)
        out["mid_price"], out["spread"], out["relative_spread"] = m, spread, spread / m
        out["weighted_mid"], out["weighted_mid_minus_mid"] = weighted, weighted - m
        for n in (1, 3, 5, 10):
            out[f"depth_imbalance_{n}"] = imbalance(sum(bid_sizes[:n]), sum(ask_sizes[:n]))
        bid_distances = side_columns("bid", bid_prices, bid_sizes, m, out)
        ask_distances = side_columns("ask", ask_prices, ask_sizes, m, out)
        near = sum([s for s, d in zip(bid_sizes, bid_distances, strict=True) if d <= 5])
        out["depth_5bps"] = near + sum([s for s, d in zip(ask_sizes, ask_distances, strict=True) if d <= 5])
        out["total_imbalance"] = imbalance(out["total_bid_depth"], out["total_ask_depth"])
        out["smart_depth_imbalance"] = imbalance(out["smart_bid_depth"], out["smart_ask_depth"])
        for lo, hi in BANDS:
            band = f"vol_band_{lo}_{hi}bps"
            out[f"imb_band_{lo}_{hi}bps"] = imbalance(out[f"bid_{band}"], out[f"ask_{band}"])
        out["vwap_spread"] = out["vwap_ask_5"] - out["vwap_bid_5"]
        worth = sum([p * s for p, s in zip(bid_prices, bid_sizes, strict=True)])
        worth += sum([p * s for p, s in zip(ask_prices, ask_sizes, strict=True)])
        cog = worth / (out["total_bid_depth"] + out["total_ask_depth"])
        out["center_of_gravity"], out["cog_vs_mid"] = cog, 1e4 * (cog - m) / m
        decays = out["bid_depth_decay_5"], out["ask_depth_decay_5"]
        out["avg_depth_decay_5"] = None if None in decays else (decays[0] + decays[1]) / 2
        for n in (3, 6):
            out[f"spread_per_depth_{n}"] = spread / (sum(bid_sizes[:n]) + sum(ask_sizes[:n]))

    def _step(
        self, t: int, bid_prices: list[float], bid_sizes: list[float], ask_prices: list[float], ask_sizes: list[float],
        out: Row,
    ) -> None:  # fmt: skip
        m, before = out["mid_price"], self.before
        out["log_return"] = out["mid_velocity"] = out["mid_accel"] = out["ofi"] = out["mlofi"] = None
        if before is None or t - before[0] > STALE:
            self.first, self.before = t, None
            for lagged in self.lagged:
                lagged.items.clear()
            out["book_history_s"] = 0.0
            return
        out["book_history_s"] = min(900 * SECOND, t - self.first) / SECOND
        last, mid, velocity, old_bids, old_bid_sizes, old_asks, old_ask_sizes, earlier = before
        out["log_return"] = math.log(m / mid)
        if t > last:
            out["mid_velocity"] = (m - mid) / ((t - last) / 1e6)
            if velocity is not None:
                out["mid_accel"] = (out["mid_velocity"] - velocity) / ((t - earlier) / 2e6)
        bid_flow = ask_flow = 0.0
        for i in range(10):
            bid = ask = None
            if i < len(bid_prices) and i < len(old_bids):
                price, was = bid_prices[i], old_bids[i]
                if price > was:
                    bid = bid_sizes[i]
                elif price < was:
                    bid = -old_bid_sizes[i]
                else:
                    bid = bid_sizes[i] - old_bid_sizes[i]
                bid_flow += WEIGHTS[i] * bid
            if i < len(ask_prices) and i < len(old_asks):
                price, was = ask_prices[i], old_asks[i]
                if price < was:
                    ask = ask_sizes[i]
                elif price > was:
                    ask = -old_ask_sizes[i]
                else:
                    ask = ask_sizes[i] - old_ask_sizes[i]
                ask_flow += WEIGHTS[i] * ask
            out[f"ofi_L{i}" if i else "ofi"] = None if bid is None or ask is None else bid - ask
        out["mlofi"] = bid_flow - ask_flow

    def _windows(self, t: int, out: Row) -> None:
        m, ofi, mlofi, move = out["mid_price"], out["ofi"], out["mlofi"], out["log_return"]
        square, relative = None if move is None else move * move, out["relative_spread"]
        cell = t // SECOND
        if cell != self.cell:
            if self.in_cell is not None:
                for window in self.volatility:
                    window.complete(self.cell, self.in_cell)
            self.cell, self.in_cell = cell, None
        if move is not None:
            self.in_cell = (self.in_cell or 0.0) + move
        sums = self.sums
        for i, h in enumerate(HORIZONS):
            out[f"ofi_sum_{h}s"] = sums["ofi"][i].update(t, ofi)
            out[f"mlofi_sum_{h}s"] = sums["mlofi"][i].update(t, mlofi)
            squares = sums["rv"][i].update(t, square)
            out[f"rv_{h}s"] = None if squares is None else math.sqrt(max(0.0, squares))
            sums["spread"][i].update(t, relative)
            out[f"mean_relative_spread_{h}s"] = sums["spread"][i].mean()
            then = self.lagged[i].update(t, m)
            out[f"ret_{h}s"] = None if then is None else math.log(m / then)
            out[f"rv_1s_{h}s"] = self.volatility[i].update(cell)

    def _of_trades(self, t: int, signed: float, out: Row) -> None:
        alive = self.last_trade is not None and t - self.last_trade <= STALE
        out["trade_age_s"] = (t - self.last_trade) / SECOND if alive else None
        out["trade_history_s"] = min(900 * SECOND, t - self.first_trade) / SECOND if alive else None
        out["signed_trade_vol"] = signed if alive and self.before is not None else None
        for window, h in zip(self.trades, HORIZONS, strict=True):
            window.expire(t)
            if not alive:
                continue
            out[f"trade_vol_{h}s"], out[f"trade_count_{h}s"] = window.volume, len(window.items)
            out[f"signed_vol_{h}s"] = window.buy - window.sell
            out[f"tfi_{h}s"] = imbalance(window.buy, window.sell)

    def _impact(self, t: int, out: Row) -> None:
        share = out["spread_percentile"] = self.rank.update(t, out["spread"])
        regime = None if share is None else "tight" if share <= 0.2 else "wide" if share >= 0.8 else "normal"
        out["spread_regime"] = regime
        out["spread_regime_tight_frac"], out["spread_regime_wide_frac"] = self.shares.update(t, regime)
        move, cell = out["log_return"], t // SECOND
        out["ofi_beta"], out["ofi_beta_r2"] = self.ofi_beta.update(cell, out["ofi"], move)
        found = self.kyle.update(cell, out["signed_trade_vol"], move)
        out["kyle_lambda"], out["kyle_lambda_r2"] = found if out["trade_age_s"] is not None else (None, None)
        of = {"bid_slope": "bid_slope_regression", "ask_slope": "ask_slope_regression", "cog_momentum": "cog_vs_mid"}
        for name, column in of.items():
            mean, deviation = self.moments[name].update(t, out[column])
            out[f"{name}_mean_60s"], out[f"{name}_std_60s"] = mean, deviation
        out["depth_5bps_sigma"] = self.depth_sigma.update(t, out["depth_5bps"])[1]


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The rows of a table as dicts, times in microseconds, a batch of them at a time."""
    place = table.schema.get_field_index("capture_ts")
    table = table.set_column(place, "capture_ts", table.column("capture_ts").cast(pa.int64()))
    for batch in table.to_batches(1_000):
        yield from batch.to_pylist()


def process(books: pa.Table, trades: pa.Table, anew: bool = False) -> list[Row]:
    """Every row of a lane, each with the trades since the row before."""
    processor, found = Processor(anew), []
    coming = rows_of(trades.select(["capture_ts", "amount", "side"]))
    ahead = next(coming, None)
    for row in rows_of(books.select(["capture_ts", "bids", "asks"])):
        since = []
        while ahead is not None and ahead["capture_ts"] <= row["capture_ts"]:
            since.append(ahead)
            ahead = next(coming, None)
        found.append(processor.update(row, since))
    return found
