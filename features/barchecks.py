"""The checks of ``checks.py`` for bars: rules, and families of columns, run through the real ``BarBuilder``."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tickstate.features import versions
from tickstate.features.barcolumns import BarColumns
from tickstate.features.barengine import COUNTS, DAY_END, EMPTY, BarBuilder, Kind
from tickstate.features.bars import BarRule
from tickstate.features.base import SECOND, Feature, near
from tickstate.features.checking import (
    UNREGISTERED,
    CheckError,
    Reference,
    WaivedError,
    close,
    held_version,
    interpreting,
)
from tickstate.features.checking_data import MIDNIGHT, from_bytes
from tickstate.features.graph import DAY
from tickstate.features.registry import BUILT_IN, Registry, default_registry
from tickstate.kernels._jit import Kernel, interpreted
from tickstate.kernels.bars import UNKNOWN

Arrays = dict[str, np.ndarray]
ROWS, SEEDS = 160, (1, 2)
_STEPS = (0, 0, 0, 1, 250_000, *(s * SECOND for s in (1, 2, 3, 8, 31, 59, 61, 299, 301)))
_INTEGERS = ("capture_ts", "timestamp")


class BarSubject:
    """A rule or a family of columns under check, with what stands beside it and what it makes of two days."""

    def __init__(
        self,
        feature: type[Feature],
        siblings: Iterable[type[Feature]] = (),
        *,
        registry: Registry | None = None,
        reference: Reference | None = None,
        versions_file: Path | None = None,
    ) -> None:
        self.feature, self.given_reference, self.versions_file = feature, reference, versions_file
        self._siblings, self._registry = tuple(siblings), registry
        self.checks: Mapping[str, Callable[[Any], None]] = {}

    @cached_property
    def registry(self) -> Registry:
        """What stands beside it: the installed features, itself and its siblings."""
        if self._registry is not None:
            return self._registry
        return default_registry().extended(dict.fromkeys((*self._siblings, self.feature)), UNREGISTERED)

    @cached_property
    def instance(self) -> Feature:
        """It, with parameters that show values on few rows."""
        examples = {"threshold": 7.0, "seconds": 60}
        return self.feature.make(
            given={k: v for k, v in examples.items() if k in self.feature.params} | dict(self.feature.examples)
        )

    @cached_property
    def kind(self) -> Kind:
        """A rule with the built-in columns, or columns (and those they read) on bars of a minute."""
        entries = [e.feature for e in self.registry.of_channel(self.feature.channel).values()]
        families = [f for f in entries if issubclass(f, BarColumns)]
        if isinstance(self.instance, BarRule):
            mine = [f for f in families if self.registry.package_of(f) == BUILT_IN]
            return Kind("check", self.instance, tuple(f.make() for f in mine))  # type: ignore[misc]
        rule = next(f for f in entries if issubclass(f, BarRule) and "seconds" in f.params)
        made = {c.name: f for f in families for c in f.make().columns()}
        chosen, wanted = [self.instance], list(self.feature.inputs)
        while wanted:
            other = made.get(wanted.pop())
            if other is not None and other is not self.feature:
                chosen.insert(0, other.make())
                wanted += other.inputs
        return Kind("check", rule.make(given={"seconds": 60}), tuple(dict.fromkeys(chosen)))  # type: ignore[arg-type]

    @cached_property
    def days(self) -> tuple[Arrays, ...]:
        """Rows of two days, as the builder takes them."""
        return tuple(make_day(self.kind, seed) for seed in SEEDS)

    @cached_property
    def wholes(self) -> tuple[pa.Table, ...]:
        """Their bars, from one chunk each."""
        return tuple(bars_of(self.kind, day) for day in self.days)

    @property
    def pairs(self) -> list[tuple[Arrays, pa.Table]]:
        """The days with their bars."""
        return list(zip(self.days, self.wholes, strict=True))

    def record(self) -> versions.Record:
        """What a versions file holds of it."""
        table = self.wholes[0]
        columns = {c.name: table.column(c.name).to_numpy(zero_copy_only=False) for c in self.instance.columns()}
        if isinstance(self.instance, BarRule):
            columns = {"trade": table.column("last_ts").cast(pa.int64()).to_numpy().astype(np.float64)}
        return versions.make_record(self.instance, columns, {})


def make_day(kind: Kind, seed: int, rows: int = ROWS) -> Arrays:
    """Rows of a day with what real ones have: equal times, fills of one order, gaps, unknown sides, null values."""
    draw = np.random.RandomState(seed)
    made = {"trade_id", "bar_end", *(c.name for f in kind.families for c in f.columns())} - set(kind.inputs)
    names = {*kind.inputs, *kind.rule.inputs, *(n for f in kind.families for n in f.inputs)} - made
    found: Arrays = {"capture_ts": MIDNIGHT + 5 * SECOND + np.cumsum(np.array(_STEPS)[draw.randint(0, 13, rows)])}
    order = np.cumsum(draw.randint(0, 3, rows) > 0)
    found["timestamp"] = np.where(draw.randint(0, 20, rows) == 0, UNKNOWN, found["capture_ts"][0] // 1000 + order)
    found["side"] = np.array([1.0, -1.0, np.nan, 1.0, -1.0])[(order * 7919) % 5]
    found["price"] = 100.0 + 0.5 * np.cumsum(draw.randint(-1, 2, rows))
    found["amount"] = draw.randint(1, 17, rows) / 8.0
    found["quote_volume"], found["base"] = found["price"] * found["amount"], found["amount"]
    for name in sorted(names - found.keys()):
        values = draw.randint(-64, 65, rows) / 64.0
        if "mid" in name or "price" in name:
            found[name] = 100.0 + np.cumsum(values) / 4.0
        else:
            found[name] = np.where(draw.randint(0, 9, rows) == 0, np.nan, values)
    return found


def bars_of(
    kind: Kind, day: Arrays, cuts: Iterable[int] = (), *, reload: bool = False, closed: bool = True
) -> pa.Table:
    """The bars of a day whose rows come in chunks; with ``reload`` another builder goes on from the bytes of each."""
    builder, n = BarBuilder(kind), day["capture_ts"].shape[0]
    edges = sorted({0, n, *cuts})
    tables = []
    for first, last in pairwise(edges):
        part = {name: values[first:last] for name, values in day.items()}
        tables.append(builder.push(part, pa.array([str(i) for i in range(first, last)], pa.string())))
        builder = restored(builder) if reload else builder
    end = MIDNIGHT + DAY if closed or not n else int(day["capture_ts"][-1])
    return pa.concat_tables([*tables, builder.finish(end, closed)]).combine_chunks()


def restored(builder: BarBuilder) -> BarBuilder:
    """A builder that shares nothing with ``builder``: each array of what it remembers through its bytes."""

    def again(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return from_bytes(value)
        if isinstance(value, dict):
            return {name: again(part) for name, part in value.items()}
        return tuple(map(again, value)) if isinstance(value, tuple) else value

    found = BarBuilder(builder.kind)
    vars(found).update(again(vars(builder)))
    return found


def size(value: Any) -> int:
    """About how many bytes a builder remembers."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(size, value.values()))
    return sum(map(size, value)) if isinstance(value, tuple | list) else len(value) if isinstance(value, str) else 8


def same_bars(got: pa.Table, want: pa.Table, when: str, fix: str = "") -> None:
    """Two tables of bars, value for value, or a ``CheckError`` with the first difference."""
    if got.equals(want):
        return
    if got.num_rows != want.num_rows:
        raise CheckError(f"{got.num_rows} bars", where=when, expected=f"{want.num_rows}", fix=fix)
    for name in want.column_names:
        for i, (a, b) in enumerate(zip(got.column(name).to_pylist(), want.column(name).to_pylist(), strict=True)):
            if a != b:
                raise CheckError(f"{name} = {a!r} in bar {i}", where=when, expected=repr(b), fix=fix)


def schema_and_units(s: BarSubject) -> None:
    """It registers; its kernel is declared with @kernel; a rule says its reasons, columns have units."""
    if not isinstance(s.feature.kernel, Kernel) or not s.feature.kernel.typed:
        raise CheckError(f"kernel {s.feature.kernel!r}", expected="a function declared with @tickstate.kernel")
    for name in s.feature.waivers:
        if name not in BAR_CHECKS or not s.feature.waivers[name]:
            expected = "the name of a check and a reason"
            raise CheckError(f"waivers[{name!r}]", expected=expected, fix=near(name, BAR_CHECKS))
    if isinstance(s.instance, BarRule):
        known = {*s.instance.reasons, DAY_END, EMPTY}
        if not s.instance.formula or not s.instance.reasons:
            raise CheckError("no formula or no reasons", expected="when a bar closes, and what the codes mean")
        for table in s.wholes:
            if not set(table.column("bar_reason").to_pylist()) <= known:
                raise CheckError("a reason that is not declared", expected=str(sorted(known)))


def agrees_with_reference(s: BarSubject) -> None:
    """It agrees with its naive reference: ends and nulls exactly, values to 1e-9."""
    if s.instance.reference is None:
        if s.registry.package_of(s.feature) == BUILT_IN:
            raise WaivedError("compared with tests/naive_bars.py in the test suite")
        raise CheckError("no reference", fix="give the class a method reference(self, columns), in plain Python")
    for day, whole in s.pairs:
        times = day["capture_ts"]
        plain = {n: _plain(day[n]) for n in s.feature.inputs if n in day}
        if isinstance(s.instance, BarRule):
            _same_ends(s, plain, times, whole)
            continue
        counts = np.cumsum([0, *whole.column(_count(s)).to_pylist()])
        made = {c.name: whole.column(c.name).to_pylist() for f in s.kind.families for c in f.columns()}
        bar_end = whole.column("bar_end").cast(pa.int64()).to_pylist()
        want: dict[str, list[Any]] = {name: [] for name in s.instance.names}
        for bar, (first, last) in enumerate(pairwise(counts)):
            given = {n: values[first:last] for n, values in plain.items()} | {"bar_end": bar_end[bar]}
            given |= {n: made[n][bar] for n in s.feature.inputs if n not in day and n in made}
            for name, value in s.instance.reference(given).items():
                want[name].append(value)
        for column in s.instance.columns():
            got = np.array([np.nan if v is None else v for v in whole.column(column.name).to_pylist()], np.float64)
            close(column, got, want[column.name])


def _same_ends(s: BarSubject, plain: dict[str, list[Any]], times: np.ndarray, whole: pa.Table) -> None:
    said = s.instance.reference(plain)  # type: ignore[misc]
    if len(said) != times.shape[0] + 1:
        raise CheckError(f"{len(said)} answers of the reference", expected="one a row, and one for the day's end")
    rows = np.cumsum(whole.column(_count(s)).to_pylist()).tolist()
    got = list(zip(rows, whole.column("bar_reason").to_pylist(), strict=True))
    want = [(i, reason) for i, reason in enumerate(said) if reason is not None]
    want += [] if want and want[-1][0] == times.shape[0] else [(times.shape[0], DAY_END)]
    if got != want:
        first = next((g, w) for g, w in [*zip(got, want, strict=False), (got[-1], want[-1])] if g != w)
        raise CheckError(f"bar ends before row {first[0][0]} ({first[0][1]})", where="against the reference",
                         expected=f"row {first[1][0]} ({first[1][1]})")  # fmt: skip


def _count(s: BarSubject) -> str:
    return COUNTS[s.feature.channel]


def _plain(values: np.ndarray) -> list[Any]:
    return [None if v != v or v == UNKNOWN else v for v in values.tolist()]


def repeatable(s: BarSubject) -> None:
    """The same rows give the same bars again: no state but the declared one."""
    for day, whole in [*s.pairs, *s.pairs]:
        same_bars(bars_of(s.kind, day), whole, "run again")


def prefix(s: BarSubject) -> None:
    """A prefix of the rows gives a prefix of the bars: no look-ahead."""
    for day, whole in s.pairs:
        for n in range(1, ROWS, 7):
            found = bars_of(s.kind, {name: values[:n] for name, values in day.items()}, closed=False)
            same_bars(found, whole.slice(0, found.num_rows), f"the first {n} rows alone", "do not read later rows")


def cuts(s: BarSubject) -> None:
    """Wherever the rows are cut into chunks, the bars are the same."""
    draw = np.random.RandomState(5)
    for day, whole in s.pairs:
        many = [tuple(range(ROWS)), *(tuple(draw.randint(1, ROWS, 6).tolist()) for _ in range(12))]
        for cut in many:
            shown = "every row" if len(cut) > 6 else f"row {', '.join(map(str, sorted(cut)))}"
            same_bars(bars_of(s.kind, day, cut), whole, f"cut before {shown}", "carry in state what a bar needs")


def cold_start(s: BarSubject) -> None:
    """A day of bars starts afresh."""
    raise WaivedError("bars begin anew each UTC day: there is no lookback")


def state_restored(s: BarSubject) -> None:
    """With the state saved, and restored from its bytes, after every row, the bars are the same."""
    for array in s.instance.new_state():
        if array.dtype.hasobject:
            raise CheckError(f"state of dtype {array.dtype}", expected="numbers: Python objects cannot be saved")
    for day, whole in s.pairs:
        same_bars(bars_of(s.kind, day, range(ROWS), reload=True), whole, "state restored after every row")


def inputs_unchanged(s: BarSubject) -> None:
    """The arrays that it is given are as before afterwards."""
    for day in s.days:
        given = {name: values.copy() for name, values in day.items()}
        bars_of(s.kind, given)
        for name, values in day.items():
            if given[name].tobytes() != values.tobytes():
                raise CheckError(f"input {name!r} was written to", fix="write to out and state alone")


def read_only_inputs(s: BarSubject) -> None:
    """It takes read-only arrays, as Arrow's buffers are."""
    notes = inspect.get_annotations(s.feature.kernel.function, eval_str=True)
    stacked = getattr(s.feature, "stacked", False)
    for (name, arg), source in zip(notes.items(), s.feature.inputs[:1] if stacked else s.feature.inputs, strict=False):
        if arg.writable:
            got = f"argument {name!r} of the kernel, for the input {source!r}, is writable"
            raise CheckError(got, fix="annotate it with Ints, Floats or Levels")


def empty_and_one_row(s: BarSubject) -> None:
    """No rows are no bars, one row is one; interpreted, so that bounds are checked."""
    for day in s.days:
        none = bars_of(s.kind, {name: values[:0] for name, values in day.items()})
        if none.num_rows:
            raise CheckError(f"{none.num_rows} bars of no rows", expected="none")
        for i in range(3):
            one = {name: values[i : i + 1] for name, values in day.items()}
            with interpreting():
                slow = bars_of(s.kind, one)
            same_bars(bars_of(s.kind, one), slow, f"row {i} alone, compiled and interpreted")
            if slow.num_rows != 1:
                raise CheckError(f"{slow.num_rows} bars of one row", expected="1")


def nulls_and_flagged_rows(s: BarSubject) -> None:
    """Every row is in one bar; a column is never null where it says so, and has some value."""
    for day, whole in s.pairs:
        if sum(whole.column(_count(s)).to_pylist()) != day["capture_ts"].shape[0]:
            raise CheckError("rows that are in no bar, or in two", expected="each in one")
        for column in s.instance.columns():
            nulls = whole.column(column.name).null_count
            if nulls == whole.num_rows:
                raise CheckError(f"column {column.name!r} has no value", fix="give examples that show some")
            if nulls and column.nulls == "never":
                raise CheckError(f"column {column.name!r} is null in {nulls} bars", expected="never")


def compiled_equals_interpreted(s: BarSubject) -> None:
    """The kernel as plain Python gives the bits of the compiled one."""
    if interpreted():
        raise WaivedError("NUMBA_DISABLE_JIT is set: nothing is compiled")
    for day, whole in s.pairs:
        with interpreting():
            slow = bars_of(s.kind, day)
        same_bars(whole, slow, "compiled, against interpreted", "mind integers that overflow, // and % of negatives")


def two_threads(s: BarSubject) -> None:
    """Two threads at once, on two days, each get the bars they get alone."""
    _ = s.wholes
    found: list[list[pa.Table]] = [[], []]
    ready = threading.Barrier(2)

    def work(i: int) -> None:
        ready.wait(timeout=60)
        found[i] += [bars_of(s.kind, s.days[i], (9, 40)) for _ in range(6)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for tables, whole in zip(found, s.wholes, strict=True):
        if len(tables) != 6:
            raise CheckError("a thread failed", expected="the bars that it makes alone")
        for got in tables:
            same_bars(got, whole, "beside another thread")


def memory_is_bounded(s: BarSubject) -> None:
    """What it remembers between chunks does not grow with the rows."""
    builder, day, sizes = BarBuilder(s.kind), make_day(s.kind, 3, rows=1200), []
    for first in range(0, 1200, 100):
        part = {name: values[first : first + 100] for name, values in day.items()}
        builder.push(part, pa.array(["id"] * 100))
        sizes.append(size(vars(builder)))
    if max(sizes) > 1.25 * max(sizes[: len(sizes) // 2]) + 2000:
        raise CheckError(
            f"{max(sizes):,} bytes after 1200 rows, {max(sizes[:6]):,} after 600", expected="about as many"
        )


def version_raised(s: BarSubject) -> None:
    """The version was raised if the kernel's code or its numbers changed: by a file of versions and hashes."""
    held_version(s, s.record)


BAR_CHECKS: dict[str, Callable[[BarSubject], None]] = {
    check.__name__: check
    for check in (
        schema_and_units, agrees_with_reference, repeatable, prefix, cuts, cold_start, state_restored,
        inputs_unchanged, read_only_inputs, empty_and_one_row, nulls_and_flagged_rows, compiled_equals_interpreted,
        two_threads, memory_is_bounded, version_raised,
    )
}  # fmt: skip
"""The same checks by the same names as of rows."""
