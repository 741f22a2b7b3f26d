"""For the tests of packages with features: ``check_feature``, and its checks as parameters of a pytest test.

In a test module (one test for each feature and check, each runnable alone by its name)::

    from tickstate.testing import parametrize_with_checks

    @parametrize_with_checks([MyFeature])
    def test_my_feature(check):
        check()
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tickstate.features.base import Feature
from tickstate.features.checking import CheckError, Reference, Result, Subject
from tickstate.features.checks import CHECKS, check_feature, run_check, subject_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CHECKS", "BoundCheck", "CheckError", "Result", "book_table", "check_feature", "parametrize_with_checks",
    "trade_table",
]  # fmt: skip


class BoundCheck:
    """One check of one feature. Call it: a failure is a ``CheckError``, a waiver is a skipped test."""

    def __init__(self, subject: Subject, name: str) -> None:
        self.subject, self.name = subject, name

    def __repr__(self) -> str:
        return f"{self.subject.feature.channel}-{self.subject.feature.name}-{self.name}"

    def result(self) -> Result:
        """What the check finds, without raising."""
        return run_check(self.subject, self.name)

    def __call__(self) -> None:
        import pytest

        found = self.result()
        if found.outcome == "waived":
            pytest.skip(f"waived: {found.reason}")
        if found.outcome == "failed":
            raise CheckError(found.reason, where=f"feature {found.feature!r}, check {self.name!r}")


def parametrize_with_checks(
    features: Iterable[type[Feature]], *, reference: Reference | None = None, versions: Path | None = None
) -> Any:
    """Decorate a pytest test with a parameter ``check``: one test for each of ``features`` and each check.

    The features may read each other. ``reference`` and ``versions`` (a file) stand in for those that stand with
    the class.
    """
    import pytest

    features = list(features)
    subjects = [subject_of(one, features, reference=reference, versions_file=versions) for one in features]
    bound = [BoundCheck(subject, name) for subject in subjects for name in subject.checks]
    return pytest.mark.parametrize("check", bound, ids=repr)


Level = tuple[float, float]


def book_table(rows: Iterable[tuple[float, Sequence[Level], Sequence[Level]]], start: int = 1_700_000_000) -> pa.Table:
    """A small bronze book for ``tickstate.compute``: (seconds after ``start``, bids, asks), levels (price, size).

    >>> book_table([(0.5, [(99.0, 1.0)], [(101.0, 2.0), (102.0, 1.0)])])["asks"].to_pylist()
    [[{'price': 101.0, 'size': 2.0}, {'price': 102.0, 'size': 1.0}]]
    """
    import pyarrow as pa

    rows = list(rows)
    levels = pa.list_(pa.struct([("price", pa.float64()), ("size", pa.float64())]))
    sides = {
        name: pa.array([[{"price": p, "size": s} for p, s in row[i]] for row in rows], levels)
        for i, name in ((1, "bids"), (2, "asks"))
    }
    return pa.table(
        {**_clocks([row[0] for row in rows], start), "nonce": pa.array(range(len(rows)), pa.int64()), **sides}
    )


def trade_table(rows: Iterable[tuple[float, str | None, float, float]], start: int = 1_700_000_000) -> pa.Table:
    """Small bronze trades for ``tickstate.compute``: (seconds after ``start``, side, price, amount)."""
    import pyarrow as pa

    rows = list(rows)
    return pa.table(
        {
            **_clocks([row[0] for row in rows], start),
            "trade_id": pa.array([str(i) for i in range(len(rows))], pa.string()),
            "side": pa.array([row[1] for row in rows], pa.string()),
            **{name: pa.array([row[i] for row in rows], pa.float64()) for i, name in ((2, "price"), (3, "amount"))},
        }
    )


def _clocks(seconds: Sequence[float], start: int) -> dict[str, pa.Array]:
    import pyarrow as pa

    times = [round((start + s) * 1e6) for s in seconds]
    return {
        "capture_ts": pa.array(times, pa.timestamp("us", tz="UTC")),
        "timestamp": pa.array([t // 1000 for t in times], pa.int64()),
    }
