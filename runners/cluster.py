"""Spans on a Dask cluster: which one, and which of its workers are like this process, so that they may take part.

``distributed`` is imported when a cluster is asked for. It moves names and paths to workers and outcomes back.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tickstate.kernels import _prepare
from tickstate.kernels.errors import TickstateError
from tickstate.runners import environment, remote
from tickstate.runners.environment import NUMERICS, Environment
from tickstate.runners.pool import Pool, PoolLost, Teller, Work, WorkerLost
from tickstate.runners.selection import Selection
from tickstate.runners.submission import LOOK, DaskExecutor, host_of, is_meant, seconds

if TYPE_CHECKING:
    from distributed import Client

FORMS = "local, dask, dask://HOST:PORT, dask:SCHEDULER_FILE.json"


@dataclass(frozen=True)
class Place:
    """Where a scheduler is: an address, a scheduler file, or (neither) on this machine, started by us."""

    address: str = ""
    file: str = ""

    def __str__(self) -> str:
        return self.address or (f"the scheduler of {self.file}" if self.file else "the local Dask cluster")


def parse_place(text: str) -> Place:
    """``dask``, ``dask://HOST:PORT`` (``tcp://``, ``tls://`` as schedulers print them), or ``dask:FILE``.

    >>> parse_place("dask://10.0.0.5:8786").address
    'tcp://10.0.0.5:8786'
    >>> parse_place("dask").address
    ''
    """
    wrong = TickstateError(repr(text), where="executor", expected=FORMS)
    if text == "dask":
        return Place()
    scheme, _, rest = text.partition(":")
    if scheme not in ("dask", "tcp", "tls") or not rest.strip("/"):
        raise wrong
    if not rest.startswith("//"):
        if scheme != "dask":
            raise wrong
        if not Path(rest).is_file():
            raise TickstateError("no such file", where=f"executor {text}", fix="see dask scheduler --scheduler-file")
        return Place(file=rest)
    try:
        parts = urlsplit(text)
        whole = parts.hostname and parts.port and not (parts.path.strip("/") or parts.query or parts.username)
    except ValueError:
        whole = False
    if not whole:
        raise wrong
    return Place(f"{'tls' if scheme == 'tls' else 'tcp'}://{parts.netloc}")


class DaskPool(Pool):
    """The workers of a Dask cluster: one at an address, a caller's, or one of this machine that we start and end."""

    def __init__(self, target: Any, workers: int | None = None) -> None:
        if find_spec("distributed") is None:
            raise TickstateError(
                f"executor {target!r} needs the package distributed", expected="the extra dask",
                fix="pip install 'tickstate[dask]'",
            )  # fmt: skip
        self._client: Client | None = None
        self._cluster: Any = None
        self._options: dict[str, Any] = {}
        self._chosen: set[str] = set()
        self._place = parse_place(target) if isinstance(target, str) else Place("the given cluster")
        self._is_ours = isinstance(target, str)
        if not self._is_ours:
            given = getattr(target, "_kwargs", {})  # of Client.get_executor(workers=..., resources=...)
            self._options = {k: v for k, v in given.items() if k in ("resources", "retries")}
            chosen = given.get("workers") or ()
            self._chosen = {chosen} if isinstance(chosen, str) else set(chosen)
            self._client = getattr(target, "_client", target)
            if getattr(self._client, "asynchronous", True) or not hasattr(self._client, "scheduler_info"):
                raise TickstateError(f"{target!r}", where="executor", expected="a synchronous distributed.Client")
        if workers and (not self._is_ours or self._place != Place()):
            raise TickstateError(
                f"workers {workers} for a cluster that has its own", expected="executor local or dask with it",
                fix="leave it away, and size the cluster where it is started",
            )  # fmt: skip
        self._wanted = workers or os.cpu_count() or 1
        self._work: tuple[Any, ...] = ()
        self._expected: Environment = {}
        self._accepted: set[str] = set()
        self._refused: dict[str, str] = {}
        self._executor: DaskExecutor | None = None
        self._has_run = False
        self._stack = ExitStack()

    def placed(self, selection: Selection) -> Selection:
        """With absolute paths: workers have folders of their own."""
        found = {n: getattr(selection, n) for n in ("bronze", "silver", "gold")}
        return replace(selection, **{n: p.absolute() for n, p in found.items() if isinstance(p, Path)})

    def start(self, observer: Teller) -> None:
        """Connect, or wait until the connection is there again, and until there is a worker."""
        if self._client is None:
            self._connect()
        limit = time.monotonic() + seconds("connect-timeout")
        while (live := self.live()) is None:
            if self._client.status not in ("running", "connecting") or time.monotonic() > limit:
                raise self._error("its scheduler is lost", "start it again")
            time.sleep(LOOK)
        patience = seconds("worker-timeout")
        limit, said = time.monotonic() + patience, False
        while not (able := self._possible(live)):
            if self._refused.keys() & live.keys():
                raise self._all_refused()
            if time.monotonic() > limit:
                raise self._error(f"no worker within {patience:g} s", "start some: dask worker ADDRESS")
            if not said:
                observer.noticed(f"waiting for a worker of {self._place}, at most {patience:g} s")
                said = True
            time.sleep(LOOK)
            live = self.live() or {}
        self.workers = sum(able.values())
        if self._executor is None:
            self._executor = DaskExecutor(self, self._client, self._options)
        self._executor.teller = observer

    def prepare(self, work: Work, observer: Teller) -> None:
        """Compare every worker with this process, and compile once a machine what is not compiled there."""
        ours = [batch.kernel for graph in environment.graphs() for batch in graph.batches]
        _prepare.prepare(ours, observer.compiling)
        kernels = sorted({f"{k.__module__}:{k.__name__}" for k in (*work.kernels, *ours)})
        versions = environment.describe(work.packages)
        self._stack.close()
        self._work = (versions, kernels, *self._stack.enter_context(_beacons(work.selection)))
        self._expected = versions | {NUMERICS: environment.numerics()}
        self._accepted = set()
        self.vet(self._possible(self.live() or {}))
        if not self._accepted:
            if self._refused:
                raise self._all_refused()
            text = f"no worker has answered within {seconds('answer-timeout'):g} s"
            raise self._error(text, "they are gone, or busy: see tickstate.answer-timeout")

    def vet(self, workers: Iterable[str]) -> None:
        """Ask workers, step by step, whether they may take part, and accept those that may."""
        assert self._executor is not None
        # a worker that cannot import what it is sent ends: ask first for what every Python has
        found = self._ask(workers, resolve_name, f"{remote.__name__}:SAME")
        missing = self._ask(found, remote.look, *self._work)
        hosts = {host_of(worker): (worker, n) for worker, n in missing.items() if n}
        for host, (_, n) in hosts.items():
            self._executor.teller.noticed(f"compiling {n} kernels on {host}: once, a minute or so")
        self._ask([worker for worker, _ in hosts.values()], remote.compile_kernels, self._work[1], patient=True)
        accepted = self._ask([w for w in missing if w not in self._refused], remote.compute, self._expected[NUMERICS])
        self._accepted = self._accepted | accepted.keys()

    def executor(self) -> Any:
        """The one executor of this cluster; what it was given last is dropped where an attempt ends in an error."""
        return self._attempt()

    def alone(self) -> Any:
        """The same: the scheduler knows which task a dead worker had."""
        return self._attempt()

    @contextmanager
    def _attempt(self) -> Iterator[DaskExecutor]:
        assert self._executor is not None
        self._has_run = True
        try:
            yield self._executor
        finally:
            self._executor.drop()

    def close(self) -> None:
        """End what we have started; a caller's client stays as it was."""
        self._stack.close()
        if self._executor is not None:
            self._executor.shutdown()
        if self._is_ours:
            for made in (self._client, self._cluster):
                if made is not None:
                    with suppress(Exception):  # the other side may be gone, and nobody waits for it
                        made.close(timeout=5)

    def live(self) -> dict[str, int] | None:
        """Threads by worker; None while there is no scheduler."""
        if self._client is None or self._client.status != "running":
            return None
        try:
            return dict(self._client.nthreads(callback_timeout=30))
        except Exception:  # whatever it is called: there was no answer
            return None

    @property
    def expected(self) -> Environment:
        """What workers must have in common with this process."""
        return self._expected

    def target(self) -> frozenset[str]:
        """Who may have a task: hosts of accepted workers, so that one that is started again there may have it too.

        Where a worker of a host was refused, the others of it by their addresses.
        """
        apart = {host_of(worker) for worker in self._refused}
        by_address = {worker: host_of(worker) in apart or ":" in host_of(worker) for worker in self._accepted}
        return frozenset(worker if by_address[worker] else host_of(worker) for worker in by_address)

    def newcomers(self, live: Mapping[str, int]) -> list[str]:
        """Workers that have not been asked yet; those that are gone are forgotten."""
        self._accepted = self._accepted & live.keys()
        return [worker for worker in self._possible(live) if worker not in self._accepted]

    def _possible(self, live: Mapping[str, int]) -> dict[str, int]:
        """Threads by worker, of those that a caller has chosen and that were not refused."""
        chosen = {w: n for w, n in live.items() if not self._chosen or is_meant(w, self._chosen)}
        return {worker: n for worker, n in chosen.items() if worker not in self._refused}

    def refuse(self, worker: str, reason: str) -> None:
        """Give a worker no task any more, and say why."""
        if worker not in self._refused:
            self._refused[worker] = reason
            self._accepted = self._accepted - {worker}
            self._executor.teller.noticed(f"refused worker {worker}: {reason}")

    def _ask(self, workers: Iterable[str], fn: Callable[..., Any], *args: Any, patient: bool = False) -> dict[str, Any]:
        """What each worker answers; those that answer with an objection are refused, those that vanish left out.

        One that is busy with other people's tasks is not waited for longer than for a worker: each task checks again.
        """
        assert self._executor is not None
        futures = {worker: self._executor.submit_to(worker, fn, *args) for worker in workers}
        wait(futures.values(), None if patient else seconds("answer-timeout"))
        found = {}
        for worker, future in futures.items():
            if not future.done():
                future.cancel()
            elif (error := future.exception()) is None:
                found[worker] = future.result()
            elif isinstance(error, remote.Unlike):
                self.refuse(worker, str(error))
            elif not isinstance(error, WorkerLost):
                self.refuse(worker, f"cannot run tickstate: {type(error).__name__}: {error}; {remote.SAME}")
        return found

    def _connect(self) -> None:
        import distributed

        _silence()
        limit = seconds("connect-timeout")
        where: dict[str, Any] = {"address": self._place.address or None}
        if self._place.file:
            where = {"scheduler_file": self._place.file}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of versions: we look ourselves, and say who and what
                if self._place == Place():
                    where = {"address": self._start_cluster()}
                self._client = distributed.Client(**where, timeout=limit, set_as_default=False, name="tickstate")
        except (OSError, ValueError, RuntimeError, TimeoutError) as error:
            self.close()
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise TickstateError(
                f"no Dask scheduler answers ({reason[0]})", where=f"executor {self._place}",
                fix="check the address, and that dask scheduler runs there",
            ) from None  # fmt: skip

    def _start_cluster(self) -> Any:
        from distributed import LocalCluster

        with _deaf_children():
            self._cluster = LocalCluster(
                n_workers=self._wanted, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=0,
                dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
            )  # fmt: skip
        return self._cluster

    def _error(self, got: str, fix: str) -> Exception:
        """A mistake to mend before anything has run; later the end of what can be done in this run."""
        if self._has_run:
            return PoolLost(f"{self._place}: {got}")
        return TickstateError(got, where=f"executor {self._place}", fix=fix)

    def _all_refused(self) -> Exception:
        worker, reason = next(iter(self._refused.items()))
        return self._error(f"every worker is refused; {worker}: {reason}", "")


@contextmanager
def _beacons(selection: Selection) -> Iterator[tuple[list[str], list[str]]]:
    """Paths that a worker must find: what is read, and files laid for it where is written."""
    reads = [selection.bronze] if "silver" in selection.tiers else [selection.silver]
    roots = [selection.silver] if "silver" in selection.tiers else []
    roots += [selection.gold] if "gold" in selection.tiers and selection.gold is not None else []
    laid = [root / "_locks" / f"beacon-{uuid.uuid4().hex}" for root in roots if isinstance(root, Path)]
    try:
        for path in laid:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        yield [str(p) for p in reads if isinstance(p, Path)], [str(p) for p in laid]
    finally:
        for path in laid:
            path.unlink(missing_ok=True)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, which a terminal sends to all: ending them is up to this one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _silence() -> None:
    """No log lines of a client that is ours: what matters is said in our words."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
