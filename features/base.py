"""What a feature is: a class of declarations and one kernel.

A family of columns is one class. Its inputs are names: arrays of its channel (``SOURCES``) or columns
of other features. Its kernel is called as ``kernel(*inputs, start, [state], [memory], *arguments, out)``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from tickstate.kernels.errors import TickstateError

if TYPE_CHECKING:
    import numpy as np

    from tickstate.kernels._jit import Kernel

SECOND = 1_000_000
"""Microseconds in a second: all times inside are integer microseconds."""

_TRADES = {
    "capture_ts": "int64 us (n): receipt time, the event clock",
    "price": "float64 quote (n): finite and above 0",
    "amount": "float64 lots (n): finite and above 0",
    "side": "float64 (n): the aggressor, +1 buy, -1 sell, NaN unknown",
    "quote": "float64 quote (n): notional by the lane facts",
    "base": "float64 base (n): notional by the lane facts",
}
JOINED = "trades."
"""Prefix of the joined trades' arrays among the sources of the order book: all trades up to the last row."""

LEVELS = ("bid_price", "bid_size", "ask_price", "ask_size")
"""The sources that have levels."""

SOURCES: Mapping[str, Mapping[str, str]] = {
    "orderbook": {
        "capture_ts": "int64 us (n): receipt time, the event clock",
        "bid_price": "float64 quote (depth, n): best first, NaN where absent",
        "bid_size": "float64 lots (depth, n)",
        "ask_price": "float64 quote (depth, n)",
        "ask_size": "float64 lots (depth, n)",
        "bid_levels": "int64 (n): bid levels present, at most depth",
        "ask_levels": "int64 (n): ask levels present, at most depth",
        **{JOINED + name: about.replace("(n)", "(m)") for name, about in _TRADES.items()},
    },
    "trades": _TRADES,
    "ticker": {
        "capture_ts": "int64 us (n): receipt time, the event clock",
        "bid": "float64 quote (n): finite and above 0",
        "ask": "float64 quote (n): finite and above bid",
        "bid_volume": "float64 lots (n): as quoted, NaN where missing",
        "ask_volume": "float64 lots (n): as quoted, NaN where missing",
    },
}
"""The arrays that features of a channel may read, one row a valid row of bronze."""

BARS = {f"{channel}_bars": channel for channel in SOURCES}
"""Channels of gold, each with the channel of silver whose columns its features read."""

BAR_SOURCES = ("capture_ts", "timestamp", "side", "price", "amount", "base", "bar_end")
"""What features of bars may read beside the columns of silver, their own channel's fields among it."""

DTYPES = ("double", "int64", "int8", "bool", "string")


class FeatureError(TickstateError):
    """A feature, column or parameter that does not exist or does not fit."""


def near(name: str, known: Iterable[str]) -> str:
    """A suggestion for a mistyped name.

    >>> near("ofy", ["ofi", "rv"])
    "did you mean 'ofi'?"
    """
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(known[:12])
    return f"known: {shown}{', ...' if len(known) > 12 else ''}"


_UNITS = {"us": 1, "ms": 1000, "s": SECOND, "m": 60 * SECOND, "min": 60 * SECOND, "h": 3600 * SECOND}


def parse_duration(text: str, where: str = "sample") -> int:
    """A duration with its unit, strictly, in microseconds.

    >>> parse_duration("500ms"), parse_duration("1s")
    (500000, 1000000)
    """
    found = re.fullmatch(r"([1-9][0-9]*)(us|ms|s|m|min|h)", text)
    if found is None:
        raise FeatureError(f"{text!r}", where=where, expected="a number and a unit, like '500ms', '1s' or '5min'")
    return int(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class Settings:
    """What holds for every feature of a lane: ``[run]`` and ``[lanes."exchange/symbol"]`` of features.toml."""

    max_staleness: float = 300.0
    """Seconds after which the snapshot before is no previous one."""
    depth: int = 20
    """Book levels a side that features see."""
    trades_max_gap: float = 300.0
    """Lane fact: seconds after the last trade in which trades count as alive."""
    contract_size: float = 1.0
    """Lane fact: base (inverse: quote) currency that one lot stands for."""
    inverse: bool = False
    """Lane fact: an amount counts quote currency, as in coin-margined futures."""
    sample: str = ""
    """Order-book silver keeps the last row of each such interval, like ``"1s"``; empty: every row."""
    fill_gaps: bool = False
    """Whether empty intervals of a sample repeat the last kept row, up to ``max_staleness``."""

    def __post_init__(self) -> None:
        if self.sample and 3600 * SECOND % parse_duration(self.sample):
            raise FeatureError(f"{self.sample!r}", where="sample", expected="a divisor of an hour")
        if self.fill_gaps and not self.sample:
            raise FeatureError("fill_gaps without sample", fix='set sample, like "1s", or leave fill_gaps away')
        for name in ("trades_max_gap", "contract_size"):
            if not 0 < getattr(self, name) < float("inf"):
                raise FeatureError(f"{name} = {getattr(self, name)}", expected="a number above 0")
        if not 0 < self.max_staleness <= 86_400:
            raise FeatureError(f"max_staleness = {self.max_staleness}", expected="seconds, above 0 and at most 86400")
        if not 1 <= self.depth <= 1000:
            raise FeatureError(f"depth = {self.depth}", expected="an integer from 1 to 1000")

    @property
    def max_staleness_us(self) -> int:
        """``max_staleness`` in microseconds."""
        return round(self.max_staleness * SECOND)

    @property
    def sample_us(self) -> int:
        """``sample`` in microseconds, 0 for every row."""
        return parse_duration(self.sample) if self.sample else 0

    @property
    def sample_reach_us(self) -> int:
        """How long before a partition rows must be seen for its sample: an interval, and what gaps repeat."""
        return self.sample_us + (self.max_staleness_us if self.fill_gaps else 0)

    @property
    def trades_max_gap_us(self) -> int:
        """``trades_max_gap`` in microseconds."""
        return round(self.trades_max_gap * SECOND)


@dataclass(frozen=True)
class Lookback:
    """What of the past a feature's own kernel needs, beside the past its inputs need.

    ``steps`` previous valid rows, each at most ``max_staleness`` older than the next, or the rows of the last
    ``seconds``. Along the graph lookbacks add up: a 300 s window on a feature of one step reaches back
    300 + 300 = 600 s, since the row that enters the window may have its previous one 300 s earlier. ``days``
    counts UTC days: 1 is the row's own day, 2 that and the one before.
    """

    steps: int = 0
    seconds: float = 0.0
    days: int = 0
    unbounded: bool = False
    """All of the past counts: the feature carries ``state`` from partition to partition."""

    def microseconds(self, settings: Settings) -> int:
        """How far back in time this reaches at most.

        >>> Lookback(steps=2).microseconds(Settings()) // SECOND
        600
        """
        return max(self.steps * settings.max_staleness_us, round(self.seconds * SECOND))

    def __str__(self) -> str:
        parts = [f"{self.steps} step{'s' * (self.steps > 1)}"] if self.steps else []
        parts += [f"{self.seconds:g} s"] if self.seconds else []
        parts += [f"{self.days} UTC day{'s' * (self.days > 1)}"] if self.days else []
        parts += ["unbounded"] if self.unbounded else []
        return " and ".join(parts) or "none"


@dataclass(frozen=True)
class Column:
    """One output column: its name, unit, formula and null rule, as the reference page prints them."""

    name: str
    unit: str
    formula: str
    nulls: str = "never on a valid row"
    dtype: str = "double"
    categories: tuple[str, ...] = ()
    """For ``dtype`` string: the texts that the kernel's codes 0, 1, ... stand for."""


@dataclass(frozen=True)
class Param:
    """A parameter of a feature: default, meaning and bounds. A tuple default asks for a list."""

    default: Any
    doc: str
    unit: str = "1"
    minimum: float | None = None
    above: float | None = None
    ascending: bool = False

    def parse(self, value: Any, where: str) -> Any:
        """``value`` as the default's type, or a ``FeatureError`` that names ``where``."""
        if isinstance(self.default, tuple):
            if not isinstance(value, list | tuple) or not value:
                raise FeatureError(f"{value!r}", where=where, expected=f"a list like {list(self.default)}")
            found = tuple(self._scalar(v, type(self.default[0]), where) for v in value)
            if self.ascending and any(b <= a for a, b in pairwise(found)):
                raise FeatureError(f"{list(found)}", where=where, expected="values that ascend")
            return found
        return self._scalar(value, type(self.default), where)

    def _scalar(self, value: Any, kind: type, where: str) -> Any:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is str or kind is bool:
            fits = isinstance(value, kind)
        elif kind is int:
            fits = fits and math.isfinite(value) and value == int(value)
        if not fits:
            raise FeatureError(f"{value!r}", where=where, expected=f"{kind.__name__}, like {self.default!r}")
        if self.minimum is not None and not value >= self.minimum:
            raise FeatureError(f"{value!r}", where=where, expected=f"at least {self.minimum:g}")
        if self.above is not None and not value > self.above:
            raise FeatureError(f"{value!r}", where=where, expected=f"above {self.above:g}")
        return kind(value)


@dataclass(frozen=True)
class Fusion:
    """A kernel that computes several features in one call, with the bits of each alone: where all are wanted.

    They read bronze alone, look back on nothing and carry nothing. The kernel gets each of their inputs once, in the
    order in which they name them, ``start``, the parameters of one after the other, and ``out`` with their columns.
    """

    kernel: Kernel
    names: tuple[str, ...]


@dataclass(frozen=True)
class Feature:
    """A family of columns. Subclass it, declare, register; instances are frozen and hashable.

    Class attributes: ``name``, ``version`` (raise it when the numbers change), ``group``, ``channel``,
    ``inputs``, ``outputs``, ``looks_back``, ``params``, ``state`` (dtype of what the kernel carries from call to
    call, or None), ``kernel``, ``source`` (the paper and section), ``default`` (False: only when selected).
    Override ``columns``, ``lookback``, ``levels`` or ``arguments`` where they depend on parameters or settings.

    The kernel fills ``out[., i - start]`` for the rows i from ``start`` on. What stands before them is the history that
    it asked for; beside levels (l, n) there is room for a row of it even where it asked for none.

    For ``check_feature``: ``examples`` (parameters with which a few hundred rows show values), ``waivers`` (a reason
    for each check that does not apply) and a ``reference``.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    group: ClassVar[str] = ""
    channel: ClassVar[str] = "orderbook"
    inputs: ClassVar[tuple[str, ...]] = ()
    outputs: ClassVar[tuple[Column, ...]] = ()
    looks_back: ClassVar[Lookback] = Lookback()
    params: ClassVar[Mapping[str, Param]] = {}
    state: ClassVar[np.dtype | None] = None
    kernel: ClassVar[Kernel]
    source: ClassVar[str] = ""
    default: ClassVar[bool] = True
    joint: ClassVar[int] = 1
    """Features of the same kernel, clock, lookback and first argument that one call may compute: (clock, x) are then
    its inputs, and a call is given as many ``x``, the first repeated for those that are not there; further arguments
    are tuples of one value a feature."""
    fusion: ClassVar[Fusion | None] = None
    """What computes it together with others of other kernels."""
    examples: ClassVar[Mapping[str, Any]] = {}
    waivers: ClassVar[Mapping[str, str]] = {}
    reference: ClassVar[Callable[..., Mapping[str, list[Any]]] | None] = None
    """A method ``reference(self, columns)``: the slow, obvious form in plain Python, that the kernel must agree with.

    ``columns`` are the feature's inputs by name, as lists: a number or None a row, a list of levels a row, ``trades.*``
    a number a trade. It gives a list for each output, None where null, the text where ``dtype`` is string.
    """

    settings: Settings = field(default_factory=Settings)
    values: tuple[tuple[str, Any], ...] = ()
    """Parameters, validated and complete, by name."""

    @classmethod
    def make(cls, settings: Settings | None = None, given: Mapping[str, Any] | None = None) -> Feature:
        """An instance with the parameters ``given``, the defaults for the rest."""
        given = dict(given or {})
        for key in given:
            if key not in cls.params:
                raise FeatureError(
                    f"unknown parameter {key!r}", where=f"[features.{cls.name}]", fix=near(key, cls.params or ["none"])
                )
        values = {
            key: p.parse(given.get(key, p.default), f"[features.{cls.name}] {key}") for key, p in cls.params.items()
        }
        return cls(settings or Settings(), tuple(sorted(values.items())))

    def __getitem__(self, key: str) -> Any:
        return dict(self.values)[key]

    def columns(self) -> tuple[Column, ...]:
        """The columns in the order of the kernel's ``out`` block."""
        return self.outputs

    def lookback(self) -> Lookback:
        """What the kernel needs of its inputs' past."""
        return self.looks_back

    def levels(self) -> int:
        """How many book levels a side the kernel reads at most: of what no feature reads no arrays are made.

        Its arrays have ``depth`` levels, or fewer where that is less, down to what it says here.
        """
        return self.settings.depth

    def trades_lookback(self) -> Lookback:
        """What the kernel needs of the joined trades' past (order-book features that read ``trades.*``).

        ``seconds`` before the first new row; with ``state`` the kernel is given new trades only, and ``seconds`` or
        ``days`` say from where on a cold start must feed them.
        """
        return Lookback()

    def arguments(self) -> tuple[Any, ...]:
        """The kernel's parameters, between state and ``out``."""
        return ()

    def new_state(self) -> tuple[np.ndarray, ...]:
        """The arrays that the kernel carries from call to call, as they are before any row."""
        import numpy as np

        return () if self.state is None else (np.zeros(1, self.state),)

    def new_memory(self) -> tuple[np.ndarray, ...]:
        """Zeroed arrays that spare the kernel from going through its history again at each call.

        They are no state: the engine forgets them at will, and from zeros the kernel must give the same bits. With
        them the history reaches back from the last row of the call before, not from the first new one.
        """
        return ()

    @cached_property
    def joins(self) -> bool:
        """Whether the kernel reads trades beside the rows of its channel."""
        return any(name.startswith(JOINED) for name in self.inputs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of ``columns()``."""
        return tuple(c.name for c in self.columns())

    @cached_property
    def call(self) -> tuple[Any, ...]:
        """``arguments()`` as the kernel takes them: tuples as read-only arrays."""
        import numpy as np

        def prepared(value: Any) -> Any:
            if not isinstance(value, tuple):
                return value
            array = np.array(value, dtype=np.int64 if isinstance(value[0], int) else np.float64)
            array.flags.writeable = False
            return array

        return tuple(prepared(v) for v in self.arguments())
