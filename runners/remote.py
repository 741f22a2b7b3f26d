"""What is run on workers of other machines. Their own errors come back as values: what a future raises is Dask's."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tickstate.kernels import _jit, _prepare
from tickstate.runners import environment
from tickstate.runners.environment import NUMERICS, Environment

DONE, FAILED, UNLIKE = "done", "failed", "unlike"
SAME = "install the same environment there as here, and start the worker again"


class Unlike(Exception):  # noqa: N818 - an objection of a worker to taking part
    """A worker is not like the process that planned the run."""


def look(versions: Environment, kernels: Sequence[str], reads: Sequence[str], writes: Sequence[str]) -> int:
    """How many kernels must be compiled here; raises ``Unlike`` over versions and over storage that is not shared."""
    found = environment.differences(environment.describe(tuple(versions)), versions)
    if found:
        raise Unlike(f"{'; '.join(found)}; {SAME}")
    for path in (*reads, *writes):
        if not Path(path).exists():
            place = Path(path).parents[1] if path in writes else path
            raise Unlike(f"does not see {place}; expected storage that all workers share; mount it there, or use s3://")
    for path in writes:
        if not os.access(path, os.W_OK):
            raise Unlike(f"may not write to {Path(path).parents[1]}; expected permission; start the worker as who may")
    return sum(1 for kernel in _kernels(kernels) if not kernel.is_ready())


def compile_kernels(kernels: Sequence[str]) -> None:
    """Compile what is not compiled yet on this machine."""
    _prepare.prepare(_kernels(kernels))


def compute(expected: str) -> None:
    """Raise ``Unlike`` where this machine computes other bits."""
    found = environment.numerics()
    if found != expected:
        raise Unlike(f"{NUMERICS} is {found}, expected {expected}; {environment.OTHER_BITS}")


def perform(expected: Environment, fn: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    """Call ``fn`` where this process is like the one that planned; says so where it is not."""
    try:
        unlike = environment.differences(_here(tuple(expected)), expected)
        if unlike:
            return UNLIKE, (_address(), f"{'; '.join(unlike)}; {SAME}")
        return DONE, fn(*args)
    except Exception as error:
        return FAILED, error


@cache
def _here(names: tuple[str, ...]) -> Environment:
    found = environment.describe(names)
    return found | {NUMERICS: environment.numerics()} if NUMERICS in names else found


def _kernels(names: Sequence[str]) -> list[_jit.Kernel]:
    """Kernels by ``module:name``."""
    for name in names:
        import_module(name.partition(":")[0])
    return [_jit.ALL[name.replace(":", ".")] for name in names]


def _address() -> str:
    from distributed import get_worker

    return get_worker().address
