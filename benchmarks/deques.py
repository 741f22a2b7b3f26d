"""Windows of a row-at-a-time processor: a deque each, with what it holds kept as running totals.

As such systems are commonly written. ``Rolling...`` are the fast form: what enters is added and what leaves is
subtracted, so that a value depends, in its last digits, on where the run began. ``...Anew`` sum what the deque holds
at every row, as is done where that drift must not be.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

SECOND = 1_000_000


class RollingSum:
    """Sum and number of the values of (t - h, t]."""

    __slots__ = ("horizon", "items", "total")

    def __init__(self, seconds: int) -> None:
        self.horizon, self.items, self.total = seconds * SECOND, deque(), 0.0

    def update(self, t: int, x: float | None) -> float | None:
        items = self.items
        if x is not None:
            items.append((t, x))
            self.total += x
        oldest = t - self.horizon
        while items and items[0][0] <= oldest:
            self.total -= items.popleft()[1]
        if not items:
            self.total = 0.0
            return None
        return self.total

    def mean(self) -> float | None:
        return self.total / len(self.items) if self.items else None


class RollingMoments:
    """Mean and sample deviation of the values of (t - h, t], by Welford's updates both ways."""

    __slots__ = ("horizon", "items", "m2", "mean")

    def __init__(self, seconds: int) -> None:
        self.horizon, self.items, self.mean, self.m2 = seconds * SECOND, deque(), 0.0, 0.0

    def update(self, t: int, x: float | None) -> tuple[float | None, float | None]:
        items = self.items
        if x is not None:
            items.append((t, x))
            delta = x - self.mean
            self.mean += delta / len(items)
            self.m2 += delta * (x - self.mean)
        oldest = t - self.horizon
        while items and items[0][0] <= oldest:
            x = items.popleft()[1]
            if not items:
                self.mean = self.m2 = 0.0
                break
            delta = x - self.mean
            self.mean -= delta / len(items)
            self.m2 -= delta * (x - self.mean)
        n = len(items)
        if n == 0:
            return None, None
        return self.mean, math.sqrt(max(0.0, self.m2) / (n - 1)) if n > 1 else None


class SumAnew(RollingSum):
    """The same, summed anew."""

    __slots__ = ()

    def update(self, t: int, x: float | None) -> float | None:
        items = self.items
        if x is not None:
            items.append((t, x))
        oldest = t - self.horizon
        while items and items[0][0] <= oldest:
            items.popleft()
        self.total = sum([x for _, x in items])
        return self.total if items else None


class MomentsAnew(RollingMoments):
    """The same, in two passes."""

    __slots__ = ()

    def update(self, t: int, x: float | None) -> tuple[float | None, float | None]:
        items = self.items
        if x is not None:
            items.append((t, x))
        oldest = t - self.horizon
        while items and items[0][0] <= oldest:
            items.popleft()
        n = len(items)
        if n == 0:
            return None, None
        mean = sum([x for _, x in items]) / n
        squares = sum([(x - mean) ** 2 for _, x in items])
        return mean, math.sqrt(squares / (n - 1)) if n > 1 else None


class RollingRank:
    """Share of the values of the window that are smaller than the newest one, from a sorted list."""

    def __init__(self, seconds: int, min_rows: int) -> None:
        self.horizon, self.min_rows = seconds * SECOND, min_rows
        self.items, self.ranked = deque(), []

    def update(self, t: int, x: float) -> float | None:
        items, ranked = self.items, self.ranked
        items.append((t, x))
        insort(ranked, x)
        oldest = t - self.horizon
        while items[0][0] <= oldest:
            del ranked[bisect_left(ranked, items.popleft()[1])]
        n = len(ranked)
        return bisect_left(ranked, x * (1 - 1e-6)) / n if n >= self.min_rows else None


class RollingShares:
    """Time spent in each regime over (t - h, t]; a stretch carries the regime of its first snapshot."""

    def __init__(self, seconds: int, max_staleness: int) -> None:
        self.horizon, self.max_staleness = seconds * SECOND, max_staleness
        self.stretches: deque[tuple[int, int, str]] = deque()
        self.spent = {"tight": 0, "normal": 0, "wide": 0}
        self.last: tuple[int, str | None] | None = None

    def update(self, t: int, regime: str | None) -> tuple[float | None, float | None]:
        stretches, spent = self.stretches, self.spent
        if self.last is not None:
            begin, was = self.last
            if was is not None and t - begin <= self.max_staleness:
                stretches.append((begin, t, was))
                spent[was] += t - begin
        self.last = (t, regime)
        start = t - self.horizon
        while stretches and stretches[0][1] <= start:
            begin, end, was = stretches.popleft()
            spent[was] -= end - begin
        tight, wide = spent["tight"], spent["wide"]
        counted = tight + wide + spent["normal"]
        if stretches and stretches[0][0] < start:
            outside, was = start - stretches[0][0], stretches[0][2]
            counted -= outside
            tight -= outside if was == "tight" else 0
            wide -= outside if was == "wide" else 0
        return (tight / counted, wide / counted) if counted else (None, None)


class Lagged:
    """The last value at or before t - h."""

    __slots__ = ("horizon", "items")

    def __init__(self, seconds: int) -> None:
        self.horizon, self.items = seconds * SECOND, deque()

    def update(self, t: int, x: float) -> float | None:
        items, oldest = self.items, t - self.horizon
        items.append((t, x))
        while len(items) > 1 and items[1][0] <= oldest:
            items.popleft()
        return items[0][1] if items[0][0] <= oldest else None


class TradeWindow:
    """Volume, number and direction of the trades of (t - h, t]."""

    __slots__ = ("buy", "horizon", "items", "sell", "volume")

    def __init__(self, seconds: int) -> None:
        self.horizon, self.items = seconds * SECOND, deque()
        self.volume = self.buy = self.sell = 0.0

    def add(self, t: int, amount: float, side: str | None) -> None:
        self.items.append((t, amount, side))
        self._count(amount, side)

    def _count(self, amount: float, side: str | None) -> None:
        self.volume += amount
        if side == "buy":
            self.buy += amount
        elif side == "sell":
            self.sell += amount

    def expire(self, t: int) -> None:
        items, oldest = self.items, t - self.horizon
        while items and items[0][0] <= oldest:
            _, amount, side = items.popleft()
            self._count(-amount, side)
        if not items:
            self.volume = self.buy = self.sell = 0.0


class TradesAnew(TradeWindow):
    """The same, summed anew."""

    __slots__ = ()

    def add(self, t: int, amount: float, side: str | None) -> None:
        self.items.append((t, amount, side))

    def expire(self, t: int) -> None:
        items, oldest = self.items, t - self.horizon
        while items and items[0][0] <= oldest:
            items.popleft()
        self.volume = sum([amount for _, amount, _ in items])
        self.buy = sum([amount for _, amount, side in items if side == "buy"])
        self.sell = sum([amount for _, amount, side in items if side == "sell"])


class CellVolatility:
    """Root of the sum of squared sums of completed 1 s cells, over the last h of them."""

    __slots__ = ("cells", "items", "total")

    def __init__(self, seconds: int) -> None:
        self.cells, self.items, self.total = seconds, deque(), 0.0

    def complete(self, cell: int, value: float) -> None:
        self.items.append((cell, value * value))
        self.total += value * value

    def update(self, now: int) -> float | None:
        items = self.items
        while items and items[0][0] < now - self.cells:
            self.total -= items.popleft()[1]
        return math.sqrt(max(0.0, self.total)) if items else None


class CellsAnew(CellVolatility):
    """The same, summed anew."""

    __slots__ = ()

    def update(self, now: int) -> float | None:
        items = self.items
        while items and items[0][0] < now - self.cells:
            items.popleft()
        return math.sqrt(sum([square for _, square in items])) if items else None


class CellRegression:
    """Slope and squared correlation over the last 300 completed cells, anew whenever a cell is completed."""

    def __init__(self, cells: int, min_cells: int) -> None:
        self.cells, self.min_cells, self.items = cells, min_cells, deque()
        self.cell: int | None = None
        self.open: tuple[float, float] | None = None
        self.found: tuple[float | None, float | None] = (None, None)

    def update(self, now: int, x: float | None, y: float | None) -> tuple[float | None, float | None]:
        if now != self.cell:
            if self.open is not None:
                self.items.append((self.cell, *self.open))
            self.cell, self.open = now, None
            while self.items and self.items[0][0] < now - self.cells:
                self.items.popleft()
            self.found = self._fit()
        if x is not None and y is not None:
            before = self.open or (0.0, 0.0)
            self.open = (before[0] + x, before[1] + y)
        return self.found

    def _fit(self) -> tuple[float | None, float | None]:
        n = len(self.items)
        if n < self.min_cells:
            return None, None
        mean_x, mean_y = sum(x for _, x, _ in self.items) / n, sum(y for _, _, y in self.items) / n
        xx = xy = yy = 0.0
        for _, x, y in self.items:
            dx, dy = x - mean_x, y - mean_y
            xx, xy, yy = xx + dx * dx, xy + dx * dy, yy + dy * dy
        return (xy / xx if xx else None), (xy * xy / (xx * yy) if xx and yy else None)
