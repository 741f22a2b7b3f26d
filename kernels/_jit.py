"""The jit policy: the one place that names numba.

A kernel is a module-level function whose arguments are annotated with the types below. It is
compiled for exactly that one signature, at its first call and not at import, and is cached by the
hash of every source of its package and of those that it calls into, and of its code and constants:
numba's own cache does not see an edit in a callee of another file, and compiles anew in each environment.

Policy: ``nogil``, ``error_model="numpy"``, never ``fastmath``, never ``parallel``. Reordered or
fused sums would change bits with the CPU's vector width, and bits are the promise. For the same
reason exp, log and powers are those of ``kernels/elementary.py``, and numba is without Intel's SVML.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from tickstate.kernels.errors import TickstateError


@dataclass(frozen=True)
class Arg:
    """The type of one kernel argument; ``ndim`` 0 is a scalar, inputs are read-only."""

    dtype: Any
    ndim: int = 1
    writable: bool = False


Int, Float = Arg("i8", 0), Arg("f8", 0)
Ints, Floats, Bytes = Arg("i8"), Arg("f8"), Arg("u1")
Offsets = Arg("i4")
Levels = Arg("f8", 2)  # [level, row]
OutInts, OutFloats, OutBytes = Arg("i8", 1, True), Arg("f8", 1, True), Arg("u1", 1, True)
OutMasks = Arg("u1", 2, True)
OutLevels = Block = Arg("f8", 2, True)  # Block: [column, row]


def State(dtype: np.dtype) -> Arg:  # noqa: N802 - reads as a type, beside the others
    """A structured array of shape (1,): the scalars a kernel carries from one call to the next."""
    return Arg(dtype, 1, True)


class Kernel:
    """A function that compiles itself at its first call. Callable, and usable inside kernels."""

    def __init__(self, function: Callable[..., Any], typed: bool) -> None:
        self.function, self.typed = function, typed
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.__module__, self.__wrapped__ = function.__module__, function
        self._dispatcher: Any = None

    @property
    def dispatcher(self) -> Any:
        """The numba dispatcher, compiled or loaded from the cache when first asked for."""
        if self._dispatcher is None:
            with _compiling:  # the folder of numba's cache is set for the whole process
                if self._dispatcher is None:
                    self._dispatcher = self._compile()
        return self._dispatcher

    @property
    def _numba_type_(self) -> Any:
        """What numba asks a global of a jitted function for: lets kernels call helpers."""
        return self.dispatcher._numba_type_

    def __call__(self, *args: Any) -> Any:
        if interpreted():
            with np.errstate(all="ignore"):  # IEEE results, as compiled with error_model="numpy"
                return self.function(*args)
        return self.dispatcher(*args)

    def is_ready(self) -> bool:
        """Whether calling it now compiles nothing: compiled in this process, or cached on disk."""
        if self._dispatcher is not None or interpreted():
            return True
        folder = _cache_of(self.function)
        return folder is not None and any(
            folder.glob(f"*.{self.function.__qualname__}-{code_hash(self.function)}.*.nbi")
        )

    def _compile(self) -> Any:
        numba = load_numba()
        options = {"nogil": True, "error_model": "numpy"}
        if not self.typed:  # kernels that call it hold its code; two processes would mix up its entries in a cache
            return numba.njit(**options)(self.function)
        folder = _cache_of(self.function)
        with _cached_in(folder, self.function):
            try:
                return numba.njit(self._signature(), cache=folder is not None, **options)(self.function)
            except numba.core.errors.NumbaError as error:
                raise _not_compiled(self.function, error) from error

    def _signature(self) -> Any:
        notes = inspect.get_annotations(self.function, eval_str=True)
        return load_numba().void(*(_numba_type(a) for name, a in notes.items() if name != "return"))

    @property
    def signatures(self) -> int:
        """How many signatures have been compiled so far; more than one is a leak of compile time."""
        return 0 if self._dispatcher is None else len(self._dispatcher.signatures)


def kernel(function: Callable[..., Any]) -> Kernel:
    """Declare a kernel: every argument annotated, columns first, ``out`` last, nothing returned.

    >>> @kernel
    ... def double(x: Floats, out: OutFloats) -> None:
    ...     for i in range(x.shape[0]):
    ...         out[i] = 2.0 * x[i]
    >>> out = np.empty(2)
    >>> double(np.array([1.0, 2.5]), out)
    >>> out.tolist()
    [2.0, 5.0]
    """
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    notes = inspect.get_annotations(function, eval_str=True)
    wrong = [n for n in names if not isinstance(notes.get(n), Arg)]
    if wrong:
        raise TypeError(
            f"kernel {function.__module__}.{function.__qualname__}: argument {wrong[0]!r} has no type; "
            "annotate it with one of tickstate.kernels._jit (Ints, Floats, Levels, Int, Float, Block, ...)"
        )
    return _declare(Kernel(function, typed=True))


def helper(function: Callable[..., Any]) -> Kernel:
    """Declare a scalar function that kernels call; it takes the types of its caller."""
    return _declare(Kernel(function, typed=False))


_compiling = threading.RLock()
ALL: dict[str, Kernel] = {}
"""Every kernel and helper declared in this process, by module and name."""


def interpreted() -> bool:
    """Whether NUMBA_DISABLE_JIT asks for plain Python: for coverage and for debuggers."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


@cache
def source_digest(*packages: Path) -> str:
    """Hash of every Python file of these folders: of all that a kernel there can call."""
    digest = hashlib.blake2b(digest_size=8)
    for root in dict.fromkeys(packages):
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(root)}|{len(data)}|".encode() + data)
    return digest.hexdigest()


def cache_folder(*packages: Path) -> Path | None:
    """Where compiled kernels of these packages are kept; None (compile anew) where nothing is writable."""
    return _folder(getattr(sys.modules.get("numba.core.config"), "USING_SVML", False), *packages)


@cache
def _folder(svml: bool, *packages: Path) -> Path | None:
    from importlib.metadata import version  # numba's own attribute would cost its import

    from platformdirs import user_cache_path

    digest = source_digest(Path(__file__).parent, *packages)
    base = os.environ.get("TICKSTATE_CACHE_DIR")
    root = Path(base) if base else user_cache_path("tickstate")
    name = f"kernels-numba{version('numba')}-numpy{version('numpy')}{'-svml' if svml else ''}-{digest}"
    return _writable(root / name)


def _writable(folder: Path) -> Path | None:
    """A folder that is there and may be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


@cache
def load_numba() -> Any:
    """numba, without Intel's SVML where that is installed: its vectors of exp and log have bits of their own.

    A caller who has imported numba before has chosen; kernels are then cached by themselves (``cache_folder``).
    """
    name = "NUMBA_DISABLE_INTEL_SVML"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        import numba
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return numba


@dataclass(frozen=True)
class _Locator:
    """What numba asks where a function's code is cached. Here by what is compiled, not by where that stands or when it
    was written: another environment or checkout of the same sources finds it there."""

    function: Callable[..., Any]
    folder: Path

    @property
    def _py_file(self) -> str:
        """Named in numba's warning of a function that it cannot cache."""
        return _source(self.function)

    def get_cache_path(self) -> str:
        return str(self.folder)

    def ensure_cache_path(self) -> None:
        """It is there."""

    def get_source_stamp(self) -> str:
        """As old as any: of other sources, it has another name."""
        return ""

    def get_disambiguator(self) -> str:
        return code_hash(self.function)


@contextmanager
def _cached_in(folder: Path | None, function: Callable[..., Any]) -> Iterator[None]:
    """numba caches a function that is declared in the block in a folder. It has a variable for that, but would put it
    in a subfolder by path, and trust it by the time of its file."""
    load_numba()
    from numba.core import caching, config

    class Chosen:
        @staticmethod
        def from_function(declared: Callable[..., Any], path: str) -> _Locator | None:
            return _Locator(function, folder) if declared is function and folder is not None else None

    classes, names = caching.CacheImpl._locator_classes, getattr(config, "CACHE_LOCATOR_CLASSES", "")
    caching.CacheImpl._locator_classes, config.CACHE_LOCATOR_CLASSES = [Chosen, *classes], ""
    try:
        yield
    finally:
        caching.CacheImpl._locator_classes, config.CACHE_LOCATOR_CLASSES = classes, names


def _not_compiled(function: Callable[..., Any], error: Exception) -> TickstateError:
    """numba's many lines about a kernel in one: what it does not know, and in which line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # colours, where colorama is installed
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in lines if not line.startswith("Failed in nopython mode")), type(error).__name__)
    place = re.search(r"^File .*, line (\d+)", text, re.MULTILINE)
    line = place[1] if place else function.__code__.co_firstlineno
    where = f"kernel {function.__qualname__!r} ({_source(function)}, line {line})"
    return TickstateError(
        f"it does not compile: {said}", where=where, fix="run it with NUMBA_DISABLE_JIT=1 to debug it"
    )


def _numba_type(arg: Arg) -> Any:
    numba = load_numba()
    base = numba.from_dtype(np.dtype(arg.dtype))
    if arg.ndim == 0:
        return base
    return numba.types.Array(base, arg.ndim, "C", readonly=not arg.writable)


def _source(function: Callable[..., Any]) -> str:
    return function.__code__.co_filename


def _cache_of(function: Callable[..., Any]) -> Path | None:
    """The cache folder of a kernel: of all the packages that it calls into, none where it has no file."""
    folder = cache_folder(*sorted(_packages(function))) if Path(_source(function)).is_file() else None
    return None if folder is None else _writable(folder / function.__module__)  # numba imports it by that name


def _packages(function: Callable[..., Any]) -> set[Path]:
    """The packages of a kernel and of the helpers it calls, the file alone of what is a script's."""
    return set(map(_package, called(function)))


def _package(function: Callable[..., Any]) -> Path:
    source = Path(_source(function))
    found = source.parent if (source.parent / "__init__.py").exists() else source
    while found != Path(__file__).parent and found != source and (found.parent / "__init__.py").exists():
        found = found.parent  # helpers may stand in another part of the same package
    return found


def called(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """A kernel's function and those of all kernels and helpers that it calls by name, directly or not, each once."""
    found = [function]
    for caller in found:  # grows
        kernels = [value for _, value in named(caller) if isinstance(value, Kernel)]
        found += dict.fromkeys(k.function for k in kernels if k.function not in found)
    return found


def code_hash(function: Callable[..., Any]) -> str:
    """A hash of what is compiled of a kernel: its code and that of all that it calls, and the constants they use.

    Of what is in memory, not on disk: constants may come from anywhere, and files change while a process runs.
    """
    digest = hashlib.blake2b(digest_size=8)
    functions = [k.function if isinstance(k, Kernel) else k for k in called(function)]
    for each in functions:  # grows by what somebody else has compiled
        digest.update(repr(_code(each.__code__)).encode())
        for name, value in named(each):
            other = getattr(value, "py_func", None)
            if other is not None and other not in functions:
                functions.append(other)
            if not isinstance(value, Kernel):
                digest.update(f"{name}={_constant(value)}".encode())
    return digest.hexdigest()


def named(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Names that a function reads from outside itself, and what they stand for; ``module.name`` too."""
    space = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    names = sorted(_names(function.__code__))
    for name in names:
        if name in space:
            yield name, space[name]
            if inspect.ismodule(space[name]) and space[name].__name__ not in ("math", "numpy"):
                yield from ((n, vars(space[name])[n]) for n in names if n in vars(space[name]))


def _names(code: CodeType) -> set[str]:
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return {*code.co_names, *code.co_freevars}.union(*map(_names, inner))


def _code(code: CodeType) -> tuple[Any, ...]:
    """A code object without the places where it stands."""
    constants = [_code(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_argcount, constants


def _constant(value: Any) -> str:
    """A value as text, whole; of what is no value to numba its type alone."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype.descr}{value.shape}{hashlib.blake2b(value.tobytes()).hexdigest()}"
    if isinstance(value, np.dtype):
        return str(value.descr)
    if isinstance(value, tuple):
        return f"({','.join(map(_constant, value))})"
    plain = (bool, int, float, complex, str, bytes, np.generic, type(None))
    return f"{type(value).__name__}:{value!r}" if isinstance(value, plain) else type(value).__name__


def _declare(new: Kernel) -> Kernel:
    ALL[f"{new.function.__module__}.{new.function.__qualname__}"] = new
    return new
