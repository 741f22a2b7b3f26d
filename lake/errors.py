"""What can be wrong with a lake: errors for people, and reasons for setting a file aside."""

from __future__ import annotations

import errno

from tickstate.kernels.errors import TickstateError


class LakeError(TickstateError):
    """A lake, a place in it or a selection of it that does not exist or does not fit."""


class StoreError(LakeError, OSError):
    """An object store that refuses, or goes on failing after all retries. It says nothing about what is stored."""

    def __init__(self, got: str, *, where: str = "", expected: str = "", fix: str = "", code: str = "") -> None:
        super().__init__(got, where=where, expected=expected, fix=fix)
        self.errno, self.code = errno.EIO, code


class BadFile(Exception):  # noqa: N818 - a finding about one file, not a failure of the run
    """A bronze file that cannot be used: it is quarantined with this reason, and all else goes on."""

    def __init__(self, relative: str, reason: str, detail: str) -> None:
        self.relative, self.reason, self.detail = relative, reason, detail
        super().__init__(f"{relative}: {reason}: {detail}")

    def __reduce__(self) -> tuple[object, ...]:
        return BadFile, (self.relative, self.reason, self.detail)


REASONS = {
    "bad_path": "the path is not CHANNEL/exchange=E/symbol=S/year=Y/month=M/day=D/hour=H/NAME.parquet",
    "bad_name": "exchange or symbol is no safe name, even with / and : replaced",
    "unreadable": "not a whole Parquet file: footer missing, truncated or foreign",
    "corrupt": "a data page does not decode or its checksum is wrong",
    "missing_column": "a required column is not there",
    "wrong_type": "a column has another type than the bronze schema",
    "path_mismatch": "a partition column's value differs from the path",
    "wrong_hour": "a capture_ts lies outside the path's hour",
    "bad_time": "a capture_ts is null",
    "too_large": "the decoded size is above the cap",
}
"""Why a file is quarantined, by reason."""
