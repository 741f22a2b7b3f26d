"""``check_feature``: named checks that hold any feature, built-in or a plugin's, to what the engine counts on.

Every check runs the feature's own kernel through the real ``Engine`` on generated lanes, alone: only with the
features that it reads, so that another's longer lookback cannot help it. A check that does not apply is waived
with a reason, by the check itself or by ``waivers`` on the class.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tickstate.features import versions
from tickstate.features.barcolumns import BarColumns
from tickstate.features.bars import BarRule
from tickstate.features.base import LEVELS, SECOND, Feature, FeatureError, Settings, near
from tickstate.features.checking import (
    CheckError,
    Columns,
    Reference,
    Result,
    Subject,
    WaivedError,
    agree,
    held_version,
    interpreting,
    push_whole,
    same_bits,
    varied,
)
from tickstate.features.checking_data import input_columns, make_lane, run_lane, state_bytes
from tickstate.features.engine import Engine
from tickstate.features.graph import DAY
from tickstate.features.registry import BUILT_IN, Entry, Registry, default_registry
from tickstate.kernels._jit import Kernel, interpreted
from tickstate.kernels.errors import TickstateError

if TYPE_CHECKING:
    from tickstate.features.barchecks import BarSubject

NEVER_NULL = "never on a valid row"


def schema_and_units(s: Subject) -> None:
    """It registers; its kernel is declared with @kernel; its columns have units, and values of their dtype."""
    if not isinstance(s.feature.kernel, Kernel) or not s.feature.kernel.typed:
        raise CheckError(f"kernel {s.feature.kernel!r}", expected="a function declared with @tickstate.kernel")
    for name in s.feature.waivers:
        if name not in CHECKS or not s.feature.waivers[name]:
            raise CheckError(f"waivers[{name!r}]", expected="the name of a check and a reason", fix=near(name, CHECKS))
    kinds = {"int64": (-(2.0**63), 2.0**63), "int8": (-128, 127), "bool": (0, 1)}
    for columns in s.wholes:
        for column in s.instance.columns():
            values = columns[column.name][~np.isnan(columns[column.name])]
            low, high = kinds.get(column.dtype, (0, len(column.categories) - 1))
            whole = (values == np.floor(values)) & (values >= low) & (values <= high)
            if column.dtype != "double" and not whole.all():
                got = f"column {column.name!r} has {values[~whole][0]!r}"
                raise CheckError(got, expected=f"{column.dtype}: a whole number from {low:g} to {high:g}")


def repeatable(s: Subject) -> None:
    """The same rows give the same bits again, whatever was computed between: no state but the declared, no clock."""
    for lane, whole in [*s.pairs, *s.pairs]:
        same_bits(run_lane(s.graph, lane), whole, "run again")
        anew = s.graph_with(Settings())
        same_bits(run_lane(anew, lane), whole, "declared and run again", "let arguments() and new_state() be constant")


def prefix(s: Subject) -> None:
    """A prefix of the rows (and trades) gives that prefix of the columns: no look-ahead."""
    for lane, whole in s.pairs:
        for n in {*range(1, len(lane), 3), len(lane) - 1}:
            want = {name: values[:n] for name, values in whole.items()}
            first = lane.rows(0, n)
            for known in (first, first.known_at(int(lane.times[n - 1]))):
                same_bits(run_lane(s.graph, known), want, f"the first {n} rows alone", "do not read rows after row i")


def cuts(s: Subject) -> None:
    """Wherever the rows are cut into chunks, the bits are the same."""
    draw = np.random.RandomState(5)
    for lane, whole in s.pairs:
        n = len(lane)
        many = [tuple(range(n)), *(tuple(draw.randint(1, n, 6).tolist()) for _ in range(8))]
        for cut in (*many, *((i,) for i in range(1, n))):
            shown = "every row" if len(cut) > 6 else f"row {', '.join(map(str, sorted(cut)))}"
            same_bits(
                run_lane(s.graph, lane, cut), whole, f"cut before {shown}",
                "let nothing depend on where a chunk begins or ends; raise the lookback if it is too short",
            )  # fmt: skip


def cold_start(s: Subject) -> None:
    """From no more of the past than the declared lookback (of the trades too) come the same bits."""
    if s.graph.unbounded:
        raise WaivedError("its lookback is unbounded: it starts from the state of the partition before")
    for lane, whole in s.pairs:
        for start in range(3, len(lane), 5):
            end, t = min(start + 24, len(lane)), int(lane.times[start])
            begin = int(np.searchsorted(lane.times, t - s.graph.total_lookback))
            got = run_lane(
                s.graph, lane.rows(0, end), (start + 7,), start=start, begin=begin, since=s.graph.trades_since(t)
            )
            same_bits(
                got, {name: values[start:end] for name, values in whole.items()},
                f"started {s.graph.total_lookback / SECOND:g} s before row {start}",
                "declare a longer looks_back (or trades_lookback), or let no value depend on older rows",
                start,
            )  # fmt: skip


def state_restored(s: Subject) -> None:
    """With the state saved, and restored from its bytes, after every row, the bits are the same."""
    for array in s.instance.new_state():
        if array.dtype.hasobject:
            raise CheckError(f"state of dtype {array.dtype}", expected="numbers: Python objects cannot be saved")
    for lane, whole in s.pairs:
        got = run_lane(s.graph, lane, tuple(range(len(lane))), reload=True)
        same_bits(got, whole, "state restored after every row", "keep all that is carried in state")


def inputs_unchanged(s: Subject) -> None:
    """The arrays that it is given are as before afterwards."""
    for lane in s.lanes:
        given = lane.whole_chunk(writable=True)
        push_whole(s.graph, lane, given)
        fresh = lane.whole_chunk(writable=True)
        for before, after in zip(fresh, given, strict=True):
            for name, values in before.items():
                if after[name].tobytes() != values.tobytes():
                    raise CheckError(f"input {name!r} was written to", fix="write to out alone")


def read_only_inputs(s: Subject) -> None:
    """It takes read-only arrays, as Arrow's buffers are."""
    kernel = s.feature.kernel
    if isinstance(kernel, Kernel) and kernel.typed:
        notes = inspect.get_annotations(kernel.function, eval_str=True)
        for (name, arg), source in zip(notes.items(), s.feature.inputs, strict=False):
            if arg.writable:
                got = f"argument {name!r} of the kernel, for the input {source!r}, is writable"
                raise CheckError(got, fix="annotate it with Ints, Floats or Levels")
    for lane, whole in s.pairs:
        same_bits(push_whole(s.graph, lane, lane.whole_chunk(writable=False)), whole, "read-only inputs")


def empty_and_one_row(s: Subject) -> None:
    """No rows, only flagged rows, one row and no trades are lanes too; interpreted, so that bounds are checked."""
    lane, whole = s.lanes[0], s.wholes[0]
    bare = replace(lane, trades={name: values[:0] for name, values in lane.trades.items()})
    flagged = replace(lane.rows(0, 0), times=lane.times[:3], flag=np.ones(3, np.uint8))
    for few in (lane.rows(0, 0), flagged):
        for name, values in run_lane(s.graph, few).items():
            if values.shape[0] != len(few) or not np.isnan(values).all():
                raise CheckError(f"column {name!r} of {len(few)} flagged rows is {values.tolist()}", expected="nulls")
    for i in range(5):
        for one in (lane.rows(i, i + 1), bare.rows(i, i + 1)):
            with interpreting():
                slow = run_lane(s.graph, one)
            same_bits(run_lane(s.graph, one), slow, f"row {i} alone, compiled and interpreted")
    with interpreting():
        first = run_lane(s.graph, lane.rows(0, 1))
    same_bits(first, {name: values[:1] for name, values in whole.items()}, "the first row alone")


def shallow_books(s: Subject) -> None:
    """It reads no level that is not there, interpreted so that bounds are checked, nor one that ``levels()`` denies."""
    if not any(values.ndim == 2 for values in s.lanes[0].arrays.values()):
        raise WaivedError(f"{s.feature.channel} has no levels")
    for depth in (1, 3):
        graph, lane = s.graph_with(Settings(depth=depth)), s.lanes[0].rows(0, 64).shallow(depth)
        with interpreting():
            slow = run_lane(graph, lane)
        same_bits(run_lane(graph, lane), slow, f"depth {depth}, compiled and interpreted")
    first, levels = s.lanes[0].rows(0, 64), s.graph.levels
    few = replace(first, arrays={**first.arrays, **{name: first.arrays[name][:levels] for name in LEVELS}})
    whole = {name: values[:64] for name, values in s.wholes[0].items()}
    with interpreting():
        slow = run_lane(s.graph, few)
    same_bits(slow, whole, f"from the first {levels} levels alone", "let levels() say how many are read")


def nulls_and_flagged_rows(s: Subject) -> None:
    """Null on flagged rows, which change no other row; never null where the column says so; some value somewhere."""
    shown = dict.fromkeys(s.instance.names, False)
    for lane, whole in s.pairs:
        same_bits(
            {name: values[lane.valid] for name, values in whole.items()}, run_lane(s.graph, lane.without_flagged()),
            "without the flagged rows",
        )  # fmt: skip
        for column in s.instance.columns():
            null = np.isnan(whole[column.name])
            shown[column.name] |= not null.all()
            if not null[lane.flag != 0].all():
                raise CheckError(f"column {column.name!r} has a value on a flagged row", expected="null")
            wrong = np.flatnonzero(null & (lane.flag == 0))
            if column.nulls == NEVER_NULL and wrong.size:
                got = f"column {column.name!r} is null (NaN or infinite) on the valid row {wrong[0]}"
                raise CheckError(got, expected=NEVER_NULL, fix="give the Column its null rule (nulls=...)")
    if not any(shown.values()):
        raise CheckError("every value is null", fix="give examples: parameters with which 128 rows show values")


def compiled_equals_interpreted(s: Subject) -> None:
    """The kernel as plain Python gives the bits of the compiled one: what a debugger shows is what runs."""
    if interpreted():
        raise WaivedError("NUMBA_DISABLE_JIT is set: nothing is compiled")
    for lane, whole in s.pairs:
        with interpreting():
            slow = run_lane(s.graph, lane)
        same_bits(whole, slow, "compiled, against interpreted", "mind integers that overflow, // and % of negatives")


def agrees_with_reference(s: Subject) -> None:
    """It agrees with its naive reference: nulls exactly, values to 1e-9; with other settings and parameters too."""
    declared = s.instance.reference
    if s.given_reference is None and declared is None:
        if s.registry.package_of(s.feature) == BUILT_IN:
            raise WaivedError("compared with tests/naive.py in the test suite")
        raise CheckError("no reference", fix="give the class a method reference(self, columns), in plain Python")
    for lane, whole in s.pairs:
        if s.given_reference is not None:
            agree(s.instance, lane, whole, s.given_reference(s.instance, lane))
        else:
            agree(s.instance, lane, whole, declared(input_columns(lane, s.graph, s.feature.inputs)))
    if s.given_reference is None:
        for what, graph, lanes in varied(s):
            feature = next(f for f in graph.features if f.name == s.feature.name)
            for lane in lanes:
                want = feature.reference(input_columns(lane, graph, feature.inputs))  # type: ignore[misc]
                agree(feature, lane, run_lane(graph, lane), want, f"with {what}, ")


def two_threads(s: Subject) -> None:
    """Two threads at once, on two lanes, each get the bits they get alone."""
    for i, argument in enumerate(s.instance.call):
        if isinstance(argument, np.ndarray) and argument.flags.writeable:
            got = f"argument {i} of arguments() is an array that the kernel may write to"
            raise CheckError(got, fix="return numbers or tuples; scratch belongs inside the kernel")
    found: list[list[Columns]] = [[], []]
    ready = threading.Barrier(2)

    def work(i: int) -> None:
        ready.wait(timeout=60)
        found[i] += [run_lane(s.graph, s.lanes[i], (9, 40)) for _ in range(6)]

    _ = s.wholes  # compiled before
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for columns, whole in zip(found, s.wholes, strict=True):
        if len(columns) != 6:
            raise CheckError("a thread failed", expected="the columns that it makes alone")
        for got in columns:
            same_bits(got, whole, "beside another thread")


def memory_is_bounded(s: Subject) -> None:
    """What it remembers between chunks does not grow with the rows."""
    lookback = max(s.graph.total_lookback, 0 if not s.graph.joins else -s.graph.trades_since(0))
    every = max(10 * SECOND, min(lookback, 2 * DAY) // 100)
    lane = make_lane(s.feature.channel, 800, 3, every=every)
    engine, sizes, given = Engine(s.graph), [], int(lane.trades["capture_ts"][0]) - 1
    for first in range(0, len(lane), 50):
        rows = lane.chunk(first, first + 50)
        until = int(rows.arrays["capture_ts"][-1])
        engine.push(rows, lane.trades_between(given, until))
        sizes.append(state_bytes(engine.state))
        given = until
    half = max(sizes[: len(sizes) // 2])
    if max(sizes) > 1.25 * half + 2000:
        raise CheckError(
            f"{max(sizes):,} bytes of state after {len(lane)} rows, {half:,} after half of them",
            expected="about as many", fix="look back on a shorter time, or carry state",
        )  # fmt: skip


def version_raised(s: Subject) -> None:
    """The version was raised if the kernel's code or the columns changed: by a file of versions and hashes."""
    held_version(s, lambda: versions.record_of(s.graph, s.feature.name))


CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        schema_and_units, agrees_with_reference, repeatable, prefix, cuts, cold_start, state_restored,
        inputs_unchanged, read_only_inputs, empty_and_one_row, shallow_books, nulls_and_flagged_rows,
        compiled_equals_interpreted, two_threads, memory_is_bounded, version_raised,
    )
}  # fmt: skip
"""Every check by name, in the order they are run; the first line of its docstring says what it holds."""


def subject_of(feature: type[Feature], siblings: Iterable[type[Feature]] = (), **given: Any) -> Subject | BarSubject:
    """What runs the checks of a feature: of rows, or of bars."""
    from tickstate.features.barchecks import BAR_CHECKS, BarSubject  # loads pyarrow

    of_bars = inspect.isclass(feature) and issubclass(feature, BarRule | BarColumns)
    found = BarSubject(feature, siblings, **given) if of_bars else Subject(feature, siblings, **given)
    found.checks = BAR_CHECKS if of_bars else CHECKS
    return found


def check_feature(
    feature: type[Feature] | str,
    only: Iterable[str] | None = None,
    *,
    registry: Registry | None = None,
    reference: Reference | None = None,
    versions_file: Path | None = None,
) -> list[Result]:
    """Run the checks (``only``: some, by name) over a feature class, or over every feature that a name selects.

    ``registry`` holds what the feature reads, by default what is installed. ``reference(feature, lane)`` stands in for
    a reference on the class: columns over the lane's valid rows.
    """
    chosen = list(CHECKS if only is None else only)
    for name in chosen:
        if name not in CHECKS:
            raise FeatureError(f"unknown check {name!r}", fix=near(name, CHECKS))
    if isinstance(feature, str):
        registry = registry or default_registry()
        classes = [e.feature for e in registry.find(feature)]
    else:
        classes = [feature]
    subjects = [subject_of(one, registry=registry, reference=reference, versions_file=versions_file) for one in classes]
    return [run_check(s, name) for s in subjects for name in chosen if only is not None or name in s.checks]


def renew_versions(entries: Iterable[Entry], registry: Registry, path: Path | None = None) -> list[tuple[str, Path]]:
    """Write what ``version_raised`` compares with, into ``path`` or the file beside each feature's module.

    Returns (channel/feature, file) of each record that changed. Raises where the numbers changed and the version
    did not; nothing is written then.
    """
    files: dict[Path, dict[str, versions.Record]] = {}
    changed = []
    for entry in entries:
        feature, key = entry.feature, f"{entry.feature.channel}/{entry.feature.name}"
        if path is None and entry.package == BUILT_IN:
            fix = "from a checkout, give --versions tests/versions.json"
            raise FeatureError(f"{feature.name!r} is built in", where="--renew", fix=fix)
        file = path or versions.beside(feature)
        if file is None:
            raise FeatureError(f"{feature.name!r} has no file", where="--renew", fix="give --versions FILE")
        records = files.setdefault(file, versions.load(file))
        new = subject_of(feature, registry=registry).record()
        kept = versions.renewed(records.get(key), new, f"feature {feature.name!r} ({feature.channel})")
        if kept != records.get(key):
            records[key] = kept
            changed.append((key, file))
    for file, records in files.items():
        versions.save(file, records)
    return changed


def run_check(subject: Subject | BarSubject, name: str) -> Result:
    """One check of one feature."""
    feature = subject.feature
    result = Result(str(feature.name), str(feature.channel), name, "passed")
    if feature.waivers.get(name):
        return replace(result, outcome="waived", reason=feature.waivers[name])
    if name not in subject.checks:
        return replace(result, outcome="waived", reason="it is of rows; these are bars")
    try:
        subject.checks[name](subject)
    except WaivedError as reason:
        return replace(result, outcome="waived", reason=str(reason))
    except TickstateError as error:
        return replace(result, outcome="failed", reason=str(error))
    except Exception as error:
        return replace(result, outcome="failed", reason=f"{type(error).__name__}: {error}")
    return result
