"""The texts that ``features new`` writes. A kind of feature is one entry of ``KINDS``; the rest is common to all.

``$name`` is the feature, ``$cls`` its class, ``$module`` the import package, ``$package`` the distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

from tickstate.features.package_files import HAND


@dataclass(frozen=True)
class Kind:
    """A kind of feature: what it is, its module, and the part of its test that is worked by hand."""

    about: str
    module: str
    test: str
    notes: str
    run: str = "features run --demo --feature $name"


ROW = Kind(
    "the relative spread for each lot that stands at the touch",
    '''\
"""$name: the relative spread for each lot at the touch. A row feature: it looks at one snapshot alone."""

from __future__ import annotations

from tickstate import Block, Column, Feature, Floats, Int, Levels, kernel


# n = rows, l = levels
@kernel
def fill(relative_spread: Floats, bid_size: Levels, ask_size: Levels, start: Int, out: Block) -> None:
    """out[0, i - start] = 1e4 * relative_spread / (q_0 + r_0). Sizes are (l, n), best level first."""
    for i in range(start, relative_spread.shape[0]):
        out[0, i - start] = 1e4 * relative_spread[i] / (bid_size[0, i] + ask_size[0, i])


class $cls(Feature):
    """The relative spread for each lot at the touch."""

    name, group, version = "$name", "$name", 1
    inputs = ("relative_spread", "bid_size", "ask_size")  # a column of another feature, and two of bronze
    outputs = (Column("$name", "bps/lot", "1e4 * relative_spread / (q_0 + r_0)"),)
    kernel = fill

    def reference(self, columns):
        """The same, slow and obvious: a list a column in, a list a column out, None where null."""
        rows = zip(columns["relative_spread"], columns["bid_size"], columns["ask_size"], strict=True)
        return {"$name": [1e4 * spread / (bids[0] + asks[0]) for spread, bids, asks in rows]}
''',
    """\
BOOK = [  # seconds, bids, asks: (price, size), best first
    (0, [(99.0, 1.0)], [(101.0, 3.0)]),
    (1, [(99.5, 2.0), (99.0, 5.0)], [(100.5, 2.0)]),
]
TRADES = []
INPUTS = {"relative_spread": [0.02, 0.01], "bid_size": [[1.0], [2.0, 5.0]], "ask_size": [[3.0], [2.0]]}
EXPECTED = [1e4 * 0.02 / 4, 1e4 * 0.01 / 4]


"""
    + HAND,
    notes="""\
- `tickstate` hands the kernel valid rows only, in order, and puts nulls on the flagged ones. Undefined is NaN.
- `start` is 0: a feature that looks at one snapshot is given no history. `out[column, row - start]` is filled.
""",
)

STEP = Kind(
    "how many snapshots in a row the mid has moved the same way",
    '''\
"""$name: how many snapshots in a row the mid has moved the same way. A step feature: it carries state."""

from __future__ import annotations

import numpy as np
from tickstate import Block, Column, Feature, Floats, Int, Ints, Lookback, State, kernel

LIMIT = 20
STATE = np.dtype([("last", "i8"), ("known", "i8"), ("mid", "f8"), ("streak", "f8")])
"""capture_ts (us) and mid of the last row, ``known`` 0 before any; the streak so far. Zeros at the beginning."""


# n = rows
@kernel
def fill(
    capture_ts: Ints, mid: Floats, start: Int, state: State(STATE), max_staleness: Int, limit: Int, out: Block
) -> None:
    """out[0, i - start] = + or - the number of moves; read state into locals first, write it back at the end."""
    last, known = state[0]["last"], state[0]["known"]
    before, streak = state[0]["mid"], state[0]["streak"]
    for i in range(start, mid.shape[0]):
        if known == 0 or capture_ts[i] - last > max_staleness or mid[i] == before:
            streak = 0.0
        elif mid[i] > before:
            streak = min(max(streak, 0.0) + 1.0, limit)
        else:
            streak = max(min(streak, 0.0) - 1.0, -limit)
        out[0, i - start] = streak
        last, known, before = capture_ts[i], 1, mid[i]
    state[0]["last"], state[0]["known"] = last, known
    state[0]["mid"], state[0]["streak"] = before, streak


class $cls(Feature):
    """How many snapshots in a row the mid has moved the same way."""

    name, group, version = "$name", "$name", 1
    inputs = ("capture_ts", "mid_price")
    outputs = (Column("$name", "rows", f"+ n after n rises in a row, - n after n falls, at most {LIMIT}"),)
    looks_back = Lookback(steps=LIMIT)  # the limit bounds what of the past counts: state is a cache
    kernel, state = fill, STATE

    def arguments(self):
        """What the kernel takes between state and ``out``."""
        return (self.settings.max_staleness_us, LIMIT)

    def reference(self, columns):
        """The same, slow and obvious: for each row, the moves before it are looked at again."""
        times, mids, found = columns["capture_ts"], columns["mid_price"], []
        for i in range(len(mids)):
            streak = 0
            for j in range(i, 0, -1):
                move = (mids[j] > mids[j - 1]) - (mids[j] < mids[j - 1])
                if times[j] - times[j - 1] > self.settings.max_staleness_us or move * streak < 0 or move == 0:
                    break
                streak += move
            found.append(max(-LIMIT, min(LIMIT, streak)))
        return {"$name": found}
''',
    """\
BOOK = [(t, [(mid - 1, 1.0)], [(mid + 1, 1.0)]) for t, mid in enumerate((100, 101, 102, 102, 101, 100, 103))]
BOOK.append((1000, [(109.0, 1.0)], [(111.0, 1.0)]))  # after a gap
TRADES = []
INPUTS = {
    "capture_ts": [*range(0, 7_000_000, 1_000_000), 1_000_000_000],
    "mid_price": [100.0, 101.0, 102.0, 102.0, 101.0, 100.0, 103.0, 110.0],
}
EXPECTED = [0, 1, 2, 0, -1, -2, 1, 0]


"""
    + HAND,
    notes="""\
- `tickstate` hands the kernel valid rows only, in order, and puts nulls on the flagged ones. Undefined is NaN.
- `start` is 0: with `state` a kernel is given each row once, and keeps in `state` what later rows need.
- `looks_back` says from where on a cold start feeds it, so that every hour can be computed alone.
""",
)

WINDOW = Kind(
    "the highest less the lowest mid of the last minute",
    '''\
"""$name: the highest less the lowest mid of the last minute. A window feature: it looks back on seconds."""

from __future__ import annotations

from tickstate import Block, Column, Feature, Floats, Int, Ints, Lookback, Param, kernel

SECOND = 1_000_000


# n = rows, those before start are the history that the lookback asks for
@kernel
def fill(capture_ts: Ints, mid: Floats, start: Int, width: Int, out: Block) -> None:
    """out[0, i - start] = max - min of mid over the rows with capture_ts in (t - width, t], t of row i itself.

    A maximum cannot drift. For sums and means use the windows of tickstate.features.windows, which do not either.
    """
    for i in range(start, mid.shape[0]):
        low = high = mid[i]
        j = i - 1
        while j >= 0 and capture_ts[j] > capture_ts[i] - width:
            low, high = min(low, mid[j]), max(high, mid[j])
            j -= 1
        out[0, i - start] = high - low


class $cls(Feature):
    """The highest less the lowest mid of the last minute."""

    name, group, version = "$name", "$name", 1
    inputs = ("capture_ts", "mid_price")
    params = {"seconds": Param(60, "window length", "s", minimum=1)}
    outputs = (Column("$name", "quote", "max(m) - min(m) over (t - seconds, t]"),)
    kernel = fill

    def lookback(self):
        """As long as the window."""
        return Lookback(seconds=self["seconds"])

    def arguments(self):
        """What the kernel takes between ``start`` and ``out``."""
        return (self["seconds"] * SECOND,)

    def reference(self, columns):
        """The same, slow and obvious: for each row a list of what is in its window."""
        times, mids, found = columns["capture_ts"], columns["mid_price"], []
        for i, now in enumerate(times):
            earlier = zip(times[: i + 1], mids[: i + 1], strict=True)
            window = [m for t, m in earlier if t > now - self["seconds"] * SECOND]
            found.append(max(window) - min(window))
        return {"$name": found}
''',
    """\
BOOK = [(t, [(mid - 1, 1.0)], [(mid + 1, 1.0)]) for t, mid in ((0, 100), (30, 104), (60, 103), (90, 101), (300, 90))]
TRADES = []
INPUTS = {
    "capture_ts": [0, 30_000_000, 60_000_000, 90_000_000, 300_000_000],
    "mid_price": [100.0, 104.0, 103.0, 101.0, 90.0],
}
EXPECTED = [0.0, 4.0, 1.0, 2.0, 0.0]  # a row exactly 60 s old is out


"""
    + HAND,
    notes="""\
- `tickstate` hands the kernel valid rows only, in order, and puts nulls on the flagged ones. Undefined is NaN.
- Rows before `start` are history, as much as the lookback says; `out[column, row - start]` is filled for the rest.
""",
)

JOINED = Kind(
    "the largest trade of the last minute, at each snapshot",
    '''\
"""$name: the largest trade of the last minute, at each snapshot. A joined feature: it reads trades too."""

from __future__ import annotations

import math

from tickstate import Block, Column, Feature, Floats, Int, Ints, Lookback, Param, kernel

SECOND = 1_000_000


# n = rows, m = trades: all up to the last row, those before it that trades_lookback asks for among them
@kernel
def fill(capture_ts: Ints, trade_ts: Ints, amount: Floats, start: Int, width: Int, out: Block) -> None:
    """out[0, i - start] = the largest amount of the trades in (t - width, t], NaN without one."""
    end = 0
    for i in range(start, capture_ts.shape[0]):
        while end < trade_ts.shape[0] and trade_ts[end] <= capture_ts[i]:  # a later trade is not known yet
            end += 1
        largest, j = math.nan, end - 1
        while j >= 0 and trade_ts[j] > capture_ts[i] - width:
            if not largest >= amount[j]:
                largest = amount[j]
            j -= 1
        out[0, i - start] = largest


class $cls(Feature):
    """The largest trade of the last minute."""

    name, group, version = "$name", "$name", 1
    inputs = ("capture_ts", "trades.capture_ts", "trades.amount")
    params = {"seconds": Param(60, "window length", "s", minimum=1)}
    outputs = (Column("$name", "lots", "max(amount) of the trades in (t - seconds, t]", "if there is none"),)
    kernel = fill

    def trades_lookback(self):
        """As long as the window; of the book it needs no row but its own."""
        return Lookback(seconds=self["seconds"])

    def arguments(self):
        """What the kernel takes between ``start`` and ``out``."""
        return (self["seconds"] * SECOND,)

    def reference(self, columns):
        """The same, slow and obvious: for each snapshot a list of the trades in its window."""
        trades = list(zip(columns["trades.capture_ts"], columns["trades.amount"], strict=True))
        width, found = self["seconds"] * SECOND, []
        for now in columns["capture_ts"]:
            found.append(max((amount for t, amount in trades if now - width < t <= now), default=None))
        return {"$name": found}
''',
    """\
BOOK = [(t, [(99.0, 1.0)], [(101.0, 1.0)]) for t in (0, 10, 60, 71, 200)]
TRADES = [(5, "buy", 100.0, 2.0), (10, "sell", 100.0, 1.0), (11, "buy", 100.0, 0.5)]  # seconds, side, price, amount
INPUTS = {
    "capture_ts": [0, 10_000_000, 60_000_000, 71_000_000, 200_000_000],
    "trades.capture_ts": [5_000_000, 10_000_000, 11_000_000],
    "trades.amount": [2.0, 1.0, 0.5],
}
EXPECTED = [None, 2.0, 2.0, None, None]  # a trade exactly 60 s old is out


"""
    + HAND,
    notes="""\
- `tickstate` hands the kernel valid rows only, in order, and puts nulls on the flagged ones. Undefined is NaN.
- `trades.*` are the trades up to the last row, and before the first as many as `trades_lookback` says. Which of them a
  row knows is for the kernel to say, by `capture_ts`.
""",
)

BAR = Kind(
    "bars that close when the price has moved by a threshold",
    '''\
"""$name: bars that close when the price has moved by a threshold. A kind of bars: its rule says where they end."""

from __future__ import annotations

import math

import numpy as np
from tickstate import BarRule, Block, Float, Floats, State, Threshold, kernel

STATE = np.dtype([("known", "i8"), ("met", "i8"), ("first", "f8")])
"""``known`` 0 before any trade; ``met`` 1 when the open bar's rule is; the first price of the open bar."""


# n = trades
@kernel
def fill(price: Floats, state: State(STATE), threshold: Float, out: Block) -> None:
    """out[0, i] = 0, the index of the reason, where a bar ends before trade i, else NaN; out[1, i] the threshold."""
    known, met, first = state[0]["known"], state[0]["met"], state[0]["first"]
    for i in range(price.shape[0]):
        out[0, i] = 0.0 if met != 0 else math.nan
        out[1, i] = threshold
        if known == 0 or met != 0:
            first = price[i]
        known, met = 1, 0
        if abs(price[i] - first) >= threshold:
            met = 1
    state[0]["known"], state[0]["met"], state[0]["first"] = known, met, first


class $cls(BarRule):
    """Bars that close when the price is a threshold away from their first one."""

    name, version, channel = "$name", 1, "trades_bars"
    prefix = "$name"  # kinds are called $name, ${name}_2.5; their columns are those of all bars of trades
    inputs = ("price",)  # columns of silver
    params = {"threshold": Threshold(5.0, "how far the price moves", "quote")}
    reasons = ("threshold",)
    formula = "its last price is threshold away from its first one"
    kernel, state = fill, STATE
    examples = {"threshold": 1.5}

    def arguments(self):
        """What the kernel takes between state and ``out``."""
        return (self["threshold"],)

    def reference(self, columns):
        """The same, slow and obvious: why a bar ends before each trade, or None; and before the day's end."""
        prices, found, begin = columns["price"], [], 0
        for i in range(len(prices) + 1):
            met = i > begin and abs(prices[i - 1] - prices[begin]) >= self["threshold"]
            found.append("threshold" if met else None)
            begin = i if met else begin
        return found
''',
    '''\
PRICES = [100.0, 101.0, 102.0, 102.5, 100.5, 100.0, 98.0]
EXPECTED = [3, 2, 2]  # trades of each bar: it closes when the price is 2 away from its first one


def test_by_hand():
    """Through the public interface, from bronze: the package must be installed (pip install -e .)."""
    trades = tickstate.compute(trade_table((t, "buy", p, 1.0) for t, p in enumerate(PRICES)), channel="trades")
    bars = tickstate.bars(trades, "${name}_2")
    assert bars["trade_count"].to_pylist() == EXPECTED
    assert bars["bar_reason"].to_pylist() == ["threshold"] * 3
    assert bars["close"].to_pylist() == [102.0, 100.5, 98.0]


def test_the_reference_by_hand():
    reasons = $cls.make(given={"threshold": 2.0}).reference({"price": PRICES})
    assert [i for i, reason in enumerate(reasons) if reason] == list(itertools.accumulate(EXPECTED))
''',
    notes="""\
- `tickstate` hands the kernel the good trades of one UTC day, in order, each once; a day's bars begin afresh.
- The kernel says before which trades a bar ends. Opens, volumes and all other columns are made from that.
""",
    run="features run --demo --feature $name\n    features run --demo --bars ${name}_2.5    # another threshold",
)


KINDS = {"row": ROW, "step": STEP, "window": WINDOW, "joined": JOINED, "bar": BAR}
"""What ``features new --kind`` knows."""
