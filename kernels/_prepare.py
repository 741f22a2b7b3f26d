"""Compiling what a run needs before it needs it: on several cores, since the first run waits for nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from tickstate.kernels import _jit
from tickstate.kernels._jit import Kernel
from tickstate.kernels.errors import TickstateError

Function = Callable[..., Any]
MOST_PROCESSES = 3
"""That help to compile: more would wait for the kernel that takes longest, a quarter of the CPU time of all."""
KERNELS_A_PROCESS = 4
"""To compile at least for each process that helps: it takes two seconds to begin."""
PATIENCE = 300.0
"""Seconds that the last groups of those processes are waited for, before they are compiled here."""
_HELPS = "TICKSTATE_HELPS_TO_COMPILE"
_COMPILES = """
import os, sys
from contextlib import suppress
from pkgutil import resolve_name
names, done = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")  # modules may read and print as they are imported
nothing = os.open(os.devnull, os.O_RDWR)
os.dup2(nothing, 0), os.dup2(nothing, 1)
for name in map(str.strip, names):
    with suppress(Exception):
        resolve_name(name).dispatcher
    print(file=done, flush=True)
"""


def prepare(kernels: Iterable[Kernel], announce: Callable[[int], None] | None = None) -> None:
    """Compile what is not compiled yet; ``announce(n)`` is told first how many kernels that are.

    Other processes help where cores are free. A kernel that cannot be compiled is left for its first call to say so:
    nothing else need suffer.
    """
    missing = [k for k in kernels if not k.is_ready()]
    if missing and announce is not None:
        announce(len(missing))
    waiting = deque(_groups(missing))
    with _processes(waiting, min(MOST_PROCESSES, _cores() - 1, len(missing) // KERNELS_A_PROCESS, len(waiting) - 1)):
        _compile(_taken(waiting))
    _compile(k for k in missing if not k.is_ready())  # what they could not import or compile, or died of


def _compile(kernels: Iterable[Kernel]) -> None:
    for kernel in kernels:
        with suppress(TickstateError):
            kernel.dispatcher  # noqa: B018 - the property compiles


def _groups(kernels: Iterable[Kernel]) -> list[list[Kernel]]:
    """Kernels that have at least half of their code in common with others of their group: what takes longest first.

    A process compiles a helper once, for all of its kernels that call it; two processes would each compile it.
    """
    found: list[tuple[list[Kernel], set[Function]]] = []
    for kernel in sorted(kernels, key=_size, reverse=True):
        functions = set(_jit.called(kernel.function))
        for group, known in found:
            if 2 * _length(functions & known) >= _length(functions):
                group.append(kernel)
                known |= functions
                break
        else:
            found.append(([kernel], functions))
    found.sort(key=lambda f: _length(f[1]), reverse=True)
    return [group for group, _ in found]


def _taken(waiting: deque[list[Kernel]]) -> Iterator[Kernel]:
    """Kernels that nobody else has taken."""
    while True:
        try:
            group = waiting.popleft()
        except IndexError:
            return
        yield from group


@contextmanager
def _processes(waiting: deque[list[Kernel]], count: int) -> Iterator[None]:
    """Have processes that compile into the cache, one of the groups that are ``waiting`` at a time each.

    They are no children of ``multiprocessing``, which would import the main module, and have none of their own.
    """
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, _HELPS: "1"}
    processes: list[subprocess.Popen[str]] = []
    threads: list[threading.Thread] = []
    if not sys.executable or _HELPS in os.environ or count < 1 or _jit.cache_folder() is None:
        count = 0
    with ExitStack() as ended:
        try:
            with suppress(OSError, RuntimeError):  # no more processes or threads to be had
                for _ in range(count):
                    process = subprocess.Popen(
                        [sys.executable, "-P", "-c", _COMPILES], env=environment, text=True,
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    )  # fmt: skip
                    processes.append(ended.enter_context(process))
                    thread = threading.Thread(target=_feed, args=(process, waiting), daemon=True)
                    thread.start()
                    threads.append(thread)
            yield
            for thread in threads:
                thread.join(PATIENCE)
        finally:  # interrupted, too: nobody waits for what they are at
            waiting.clear()
            for process in processes:
                process.kill()
            for thread in threads:
                thread.join()


def _feed(process: subprocess.Popen[str], waiting: deque[list[Kernel]]) -> None:
    """Give a process one kernel after the other."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError), process.stdin, process.stdout:
        for kernel in _taken(waiting):
            process.stdin.write(f"{kernel.__module__}:{kernel.__name__}\n")
            process.stdin.flush()
            if not process.stdout.readline():
                return


def _size(kernel: Kernel) -> int:
    """Roughly how long a kernel takes to compile: the length of its code and of all that it calls."""
    return _length(_jit.called(kernel.function))


def _length(functions: Iterable[Function]) -> int:
    return sum(len(function.__code__.co_code) for function in functions)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
