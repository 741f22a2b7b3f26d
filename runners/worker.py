"""What every worker does: its span's partitions one after the other, each locked, tried and accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

from filelock import Timeout

from tickstate.lake.behind import Behind
from tickstate.lake.errors import StoreError
from tickstate.lake.segment import Files
from tickstate.lake.store import persistent
from tickstate.runners.locks import partition_lock
from tickstate.runners.outcome import Outcome


class Changed(Exception):  # noqa: N818 - not an error: the plan is out of date
    """An input is no longer the one that was planned with."""


class Unfinished(NamedTuple):
    """A partition that is computed, and written and committed ``behind``; its lock is held until then."""

    hour: int
    rest: Future[list[Outcome]]
    lock: ExitStack


class Worker:
    """Computes and commits the partitions of one lane. The watcher keeps one a lane; a span's lives as long as it.

    While one is written and committed (``Behind``), the next is computed already, unless it needs the record of the
    one before (``_follows``). Outcomes come in the order of the hours all the same, in the thread that called ``run``,
    and a fault of either partition is said in its own.

    ``span`` has ``root`` (the tier that is written), ``writes`` (the channel), ``lane`` and ``hours``.
    """

    def __init__(self, span: Any, files: Files, patience: float = -1) -> None:
        self.span, self.files, self._patience = span, files, patience
        self._behind: Behind
        self._commits: Behind
        self._unfinished: Unfinished | None = None

    def update(self, span: Any) -> None:
        """Go on with a newer plan for the same lane."""
        self.span = span

    def fits(self, span: Any) -> bool:
        """Whether ``update`` with this plan makes sense."""
        return True

    def save(self) -> None:
        """Save what makes the next start cheaper."""

    def close(self) -> None:
        """End threads."""

    def run(
        self, report: Callable[[Outcome], None] | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> list[Outcome]:
        """All partitions of the span, in order, until ``stopped``: what is computed by then is committed."""
        found: list[Outcome] = []
        ended: list[Outcome] = []

        def tell(outcomes: list[Outcome]) -> None:
            found.extend(outcomes)
            for outcome in outcomes if report is not None else ():
                report(outcome)

        def end(now: Unfinished | None = None) -> None:
            last, self._unfinished = self._unfinished, now
            if last is not None:
                ended.extend(self._end(last))

        def settle(now: Unfinished | None = None) -> None:
            end(now)
            while ended:
                tell([ended.pop(0)])

        with self._working():
            for hour in self.span.hours:
                if stopped():
                    break
                if self._follows(hour):
                    settle()
                blocked = self._blocked(found)
                tried = self._outcomes(hour, error=blocked) if blocked else self._try(hour, end)
                if isinstance(tried, Unfinished):
                    settle(tried)
                else:
                    settle()
                    tell(tried)
            settle()
        return found

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Have the threads behind; what is with them is waited for, even where ``run`` is interrupted."""
        try:
            with closing(Behind("encode")) as self._behind, closing(Behind("commit")) as self._commits:
                yield
        finally:
            last, self._unfinished = self._unfinished, None
            if last is not None:
                last.lock.close()

    def _try(self, hour: int, end: Callable[[], None]) -> list[Outcome] | Unfinished:
        """Make a partition; ``end`` is called before its lock is waited for."""
        name = f"{self.span.writes}/{self.span.lane}/{hour}"
        with ExitStack() as stack:
            try:
                stack.enter_context(partition_lock(self.span.root, name, self._patience, end))
                self._commits.begin()
                made = persistent(lambda: self._make(hour))
                if isinstance(made, list):
                    return made
                rest = self._commits.submit(made)
            except Exception as error:
                return self._said(hour, error)
            return Unfinished(hour, rest, stack.pop_all())

    def _end(self, last: Unfinished) -> list[Outcome]:
        """Wait for the rest of a partition."""
        with last.lock:
            try:
                return last.rest.result()
            except Exception as error:
                return self._said(last.hour, error)
            except BaseException:
                wait((last.rest,))  # interrupted: what is under way is committed, and locked until then
                raise

    def _said(self, hour: int, error: Exception) -> list[Outcome]:
        """An exception as outcomes: it is this partition's, and all else is done."""
        if isinstance(error, Timeout):
            return self._outcomes(hour, busy=True)
        if isinstance(error, Changed):
            return self._outcomes(hour, changed=True)
        return self._outcomes(hour, **self._fault(hour, error))

    def _fault(self, hour: int, error: Exception) -> dict[str, Any]:
        """What an outcome says of an exception."""
        text = str(error).strip().splitlines()
        moved = isinstance(error, OSError) and not isinstance(error, StoreError)
        if moved:
            try:
                moved = self._has_changed(hour)
            except StoreError as fault:
                error, moved, text = fault, False, [str(fault)]
        reason = "" if moved else f"{type(error).__name__}: {text[0] if text else ''}"
        return {"error": reason, "changed": moved}

    def _outcomes(self, hour: int, **what: Any) -> list[Outcome]:
        """The same of everything that ``hour`` stands for."""
        return [Outcome(self.span.writes, self.span.lane, hour, **what)]

    def _blocked(self, found: list[Outcome]) -> str:
        """Why the next partition cannot be tried after these outcomes."""
        return ""

    def _follows(self, hour: int) -> bool:
        """Whether a partition reads what the one before it has committed."""
        return False

    def _make(self, hour: int) -> list[Outcome] | Callable[[], list[Outcome]]:
        """Compute what ``hour`` stands for; nothing where another runner has done it.

        Returns what became of it, or what is left to do: it is done in the thread ``self._commits``, the partition's
        lock held, and must not touch what computing the next one changes.
        """
        raise NotImplementedError

    def _has_changed(self, hour: int) -> bool:
        """Whether a file that was read is no longer the one that was planned with."""
        raise NotImplementedError
