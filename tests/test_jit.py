"""The jit policy (kernels/_jit.py), held over the whole source tree."""

import ast
import importlib
import inspect
import os
import shutil
import subprocess
import sys
import threading
import time
import types
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import conftest
import lakes
import numpy as np
import pytest

import tickstate
from tickstate.kernels import _jit, _prepare
from tickstate.kernels._jit import Floats, Int, OutFloats, State, helper, kernel
from tickstate.kernels.errors import TickstateError

ROOT = Path(tickstate.__file__).resolve().parents[1]
KERNELS = Path(_jit.__file__).resolve().parent
FOLDERS = {path.name: path for path in [KERNELS, *(KERNELS.parent / n for n in ("features", "lake", "runners", "api"))]}
SOURCES = sorted(path for folder in FOLDERS.values() for path in folder.rglob("*.py"))
MODULES = sorted(path.stem for path in KERNELS.glob("*.py") if not path.stem.startswith("_"))

for module in MODULES:
    importlib.import_module(f"tickstate.kernels.{module}")
ALL = {name: k for name, k in _jit.ALL.items() if name.startswith("tickstate.kernels.")}
TYPED = {name: k for name, k in ALL.items() if k.typed}
every_kernel = pytest.mark.parametrize("name", TYPED, ids=lambda name: name.removeprefix("tickstate.kernels."))


def arguments(k):
    """Names and types of a kernel's arguments."""
    notes = inspect.get_annotations(k.function, eval_str=True)
    return {name: kind for name, kind in notes.items() if name != "return"}


def is_state(kind):
    return kind.ndim == 1 and np.dtype(kind.dtype).names is not None


# ---- the source tree


def test_there_is_a_tree_to_walk():
    assert {"structure", "window", "step", "book", "order"} <= set(MODULES)
    assert len(SOURCES) > 40
    assert len(TYPED) > 20


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_numba_is_named_in_one_place_alone(path):
    """No other module imports numba, nor asks it for what would reorder a sum."""
    tree, named = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            named.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call):
            asked = {keyword.arg for keyword in node.keywords}
            assert not asked & {"fastmath", "parallel"}, f"line {node.lineno}"
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            assert called not in ("njit", "jit", "vectorize", "guvectorize") or path == KERNELS / "_jit.py"
            if called in ("import_module", "__import__"):
                named |= {a.value.split(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    assert "numba" not in named or path == KERNELS / "_jit.py"


def test_the_policy_is_the_one_written_down():
    options = {
        key.value: ast.unparse(value)
        for node in ast.walk(ast.parse((KERNELS / "_jit.py").read_text()))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant)
    }
    assert options["nogil"] == "True"
    assert options["error_model"] == "'numpy'"
    assert not {"fastmath", "parallel"} & set(options)


@pytest.mark.parametrize("module", MODULES)
def test_kernels_import_kernels_alone(module):
    """Arrays in, arrays out: no I/O, no Arrow, no Feature."""
    for node in ast.walk(ast.parse((KERNELS / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"math", "numpy"}
        elif isinstance(node, ast.ImportFrom):
            assert node.module in ("__future__", "tickstate.kernels._jit", *(f"tickstate.kernels.{m}" for m in MODULES))


@every_kernel
def test_outputs_come_last_and_nothing_is_returned(name):
    """Columns, start, state, parameters, outputs."""
    kinds = list(arguments(TYPED[name]).values())
    assert kinds[-1].writable and not is_state(kinds[-1])
    while kinds and kinds[-1].writable and not is_state(kinds[-1]):
        kinds.pop()
    carried = [i for i, kind in enumerate(kinds) if kind.writable]
    assert not carried or (is_state(kinds[carried[0]]) and carried == list(range(carried[0], carried[-1] + 1)))
    tree = ast.parse(inspect.getsource(TYPED[name].function))
    assert all(node.value is None for node in ast.walk(tree) if isinstance(node, ast.Return))
    assert not any(isinstance(node, ast.Yield) for node in ast.walk(tree))


@every_kernel
def test_start_comes_after_the_columns(name):
    names = [*arguments(TYPED[name])]
    if "start" in names:
        kinds = arguments(TYPED[name])
        before = names[: names.index("start")]
        assert before
        assert all(kinds[n].ndim and not kinds[n].writable for n in before)
        assert kinds["start"] == Int


@pytest.mark.parametrize("name", ALL)
def test_every_kernel_says_what_it_does_and_fits_on_a_screen(name):
    lines = inspect.getsource(ALL[name].function).splitlines()
    assert ALL[name].__doc__
    assert len(lines) <= 60


# ---- arguments


@pytest.mark.kernels
@pytest.mark.parametrize("writable", [True, False])
def test_inputs_may_be_read_only_or_not(writable):
    from tickstate.kernels.columns import latency
    from tickstate.kernels.window import SUM, SUMS, sum_windows

    times, x, widths = np.arange(5, dtype=np.int64) * 1000, np.ones(5), np.array([8, 4000], np.int64)
    for array in (times, x, widths):
        array.flags.writeable = writable
    out, ms = np.empty((2, 5)), np.empty(5)
    sum_windows(times, x, x, x, x, 0, np.zeros(2, SUMS), widths, np.array([SUM]), out)
    latency(times, times, ms)
    assert out.tolist() == [[1.0] * 5, [1.0, 2.0, 3.0, 4.0, 4.0]]
    assert ms.tolist() == [0.0, -999.0, -1998.0, -2997.0, -3996.0]


@pytest.mark.skipif(_jit.interpreted(), reason="plain Python takes any array")
def test_another_type_is_an_error_and_no_second_signature():
    from tickstate.kernels.columns import latency

    times, out = np.arange(5, dtype=np.int64), np.empty(5)
    latency(times, times, out)
    assert latency.signatures == 1
    with pytest.raises(TypeError, match="No matching definition"):
        latency(times.astype(np.int32), times, out)
    with pytest.raises(TypeError, match="No matching definition"):
        latency(times[::2], times, out)
    out.flags.writeable = False
    with pytest.raises(TypeError, match="No matching definition"):
        latency(times, times, out)
    assert latency.signatures == 1


@pytest.mark.kernels
def test_an_argument_without_a_type_is_an_error_that_helps():
    with pytest.raises(TypeError, match=r"bare: argument 'y' has no type; annotate it with one of .*Floats"):

        @kernel
        def bare(x: Floats, y, out: OutFloats) -> None:
            """Nothing."""

    with pytest.raises(TypeError, match="argument 'x' has no type"):

        @kernel
        def python_types(x: float, out: OutFloats) -> None:
            """Nothing."""


def test_the_count_of_signatures_would_be_seen(monkeypatch):
    """conftest.py fails the session where a kernel has more than one."""
    assert conftest.kernels_with_many_signatures() == []

    class Leaking:
        typed, signatures = True, 2

    monkeypatch.setitem(_jit.ALL, "a.leaking", Leaking())
    assert conftest.kernels_with_many_signatures() == ([] if _jit.interpreted() else ["a.leaking"])


# ---- compiling, here even where the suite runs interpreted


@pytest.fixture
def compiling(monkeypatch, tmp_path):
    """numba switched on, whatever the suite is run with, and a cache folder of its own."""
    import numba

    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    monkeypatch.setenv("TICKSTATE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(_jit, "ALL", {})
    memories = [_jit._folder, _jit.source_digest]
    for memory in memories:
        memory.cache_clear()
    yield tmp_path / "cache"
    for memory in memories:
        memory.cache_clear()


PACKAGE = {
    "inner.py": "from tickstate.kernels._jit import helper\n\n\n@helper\ndef grow(x):\n    return x * FACTOR\n",
    "outer.py": """
        import numpy as np
        from tickstate.kernels._jit import Floats, Int, OutFloats, State, kernel
        from {package}.inner import grow

        SUM = np.dtype([("total", "f8")])

        @kernel
        def grow_all(x: Floats, start: Int, state: State(SUM), out: OutFloats) -> None:
            for i in range(start, x.shape[0]):
                out[i - start] = grow(x[i])
                state[0]["total"] += out[i - start]
        """,
}


def write_package(folder, name, factor):
    package = folder / name
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "inner.py").write_text(PACKAGE["inner.py"].replace("FACTOR", str(factor)))
    (package / "outer.py").write_text(inspect.cleandoc(PACKAGE["outer.py"].replace("{package}", name)))
    return package


@pytest.mark.kernels
def test_a_kernel_compiles_at_its_first_call_and_is_cached(compiling, tmp_path, monkeypatch):
    write_package(tmp_path, "grown", 2.0)
    monkeypatch.syspath_prepend(tmp_path)
    grow_all = importlib.import_module("grown.outer").grow_all
    assert (grow_all.signatures, grow_all.is_ready()) == (0, False)
    told = []
    _prepare.prepare([grow_all], told.append)
    _prepare.prepare([grow_all], told.append)
    assert told == [1]
    assert (grow_all.signatures, grow_all.is_ready()) == (1, True)
    state, out = np.zeros(1, [("total", "f8")]), np.empty(2)
    grow_all(np.arange(3.0), 1, state, out)
    assert out.tolist() == [2.0, 4.0]
    assert state["total"].tolist() == [6.0]
    again = _jit.Kernel(grow_all.function, typed=True)  # as another process would see it
    assert again.is_ready()
    assert again.signatures == 0
    assert list(compiling.rglob("*.nbi"))


@pytest.mark.kernels
def test_other_processes_help_to_compile(compiling, tmp_path, monkeypatch):
    """What they have made is loaded, not made again; what they cannot is made here."""
    folder = write_package(tmp_path, "shared", 2.0)
    names = [f"grow_{i}" for i in range(4)]
    kernels = [outer.replace("grow_all", name) for outer in [(folder / "outer.py").read_text()] for name in names]
    head, *_ = kernels[0].partition("@kernel")
    (folder / "outer.py").write_text(head + "\n\n".join("@kernel" + text.partition("@kernel")[2] for text in kernels))
    monkeypatch.syspath_prepend(tmp_path)
    outer = importlib.import_module("shared.outer")
    wanted = [getattr(outer, name) for name in names]
    monkeypatch.setattr(_prepare, "_cores", lambda: 2)
    monkeypatch.setattr(_prepare, "_groups", lambda kernels: [[k] for k in kernels])
    taken = _prepare._taken

    def taken_elsewhere(waiting):
        """The process that helps takes what there is; what is left here is nothing."""
        if threading.current_thread() is not threading.main_thread():
            return taken(waiting)
        until = time.monotonic() + 60
        while waiting and time.monotonic() < until:
            time.sleep(0.01)
        return iter(())

    monkeypatch.setattr(_prepare, "_taken", taken_elsewhere)
    _prepare.prepare(wanted)
    assert [k.signatures for k in wanted] == [0] * 4
    assert all(k.is_ready() for k in wanted)
    for k in wanted:
        out = np.empty(2)
        k(np.arange(3.0), 1, np.zeros(1, [("total", "f8")]), out)
        assert out.tolist() == [2.0, 4.0]
        assert sum(k.dispatcher.stats.cache_hits.values()) == 1

    def dies(process, waiting):
        process.kill()
        waiting.pop()

    shutil.rmtree(compiling)
    again = [_jit.Kernel(k.function, typed=True) for k in wanted]
    monkeypatch.setattr(_prepare, "_taken", taken)
    monkeypatch.setattr(_prepare, "_feed", dies)
    _prepare.prepare(again)
    assert [k.signatures for k in again] == [1] * 4


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("name", "noise"),
    [("prints", "print('hello')"), ("reads", "input()"), ("mutes", "sys.stdout = open(os.devnull, 'w')")],
)
def test_a_module_may_print_and_read_where_others_compile(compiling, tmp_path, monkeypatch, name, noise):
    """What such a process has made is not taken for more or less than it is, and it is never waited for in vain."""
    folder = write_package(tmp_path, name, 2.0)
    text = (folder / "outer.py").read_text()
    helps = "if os.environ.get('TICKSTATE_HELPS_TO_COMPILE'):\n    with suppress(EOFError):\n        "
    (folder / "outer.py").write_text(f"import os, sys\nfrom contextlib import suppress\n{helps}{noise}\n{text}")
    monkeypatch.syspath_prepend(tmp_path)
    grow_all = importlib.import_module(f"{name}.outer").grow_all
    waiting = deque([[grow_all]])
    with _prepare._processes(waiting, 1):
        pass
    assert not waiting
    assert (grow_all.signatures, grow_all.is_ready()) == (0, True)


@pytest.mark.kernels
def test_an_interrupted_compilation_leaves_no_process(compiling):
    waiting = deque([[_jit.Kernel(k.function, typed=True)] for k in list(TYPED.values())[:9]])
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), _prepare._processes(waiting, 2):
        assert threading.active_count() == before + 2
        raise KeyboardInterrupt
    assert not waiting
    assert threading.active_count() == before


@pytest.mark.kernels
def test_kernels_that_share_their_code_are_compiled_by_one_process():
    groups = _prepare._groups(TYPED.values())
    assert sorted(k.__name__ for group in groups for k in group) == sorted(k.__name__ for k in TYPED.values())
    together = {k.__name__: i for i, group in enumerate(groups) for k in group}
    assert together["moment_windows"] == together["moment_window"], "the same moments, of several columns and of one"
    assert len({together[name] for name in ("moment_windows", "rank_in_window", "vpin")}) == 3
    code = [{f for k in group for f in _jit.called(k.function)} for group in groups]
    lengths = [sum(len(f.__code__.co_code) for f in functions) for functions in code]
    assert lengths == sorted(lengths, reverse=True), "what takes longest begins first"


@pytest.mark.kernels
def test_a_kernel_that_calls_itself_has_a_size(compiling):
    names = {"__name__": "__main__"}
    head = "from tickstate.kernels._jit import helper\n"
    exec(compile(head + "@helper\ndef fold(n):\n    return 0 if n < 1 else fold(n - 1)\n", "<stdin>", "exec"), names)
    assert _prepare._size(names["fold"]) == len(names["fold"].function.__code__.co_code)


@pytest.mark.kernels
def test_threads_compile_one_after_the_other(monkeypatch):
    """The folder of numba's cache is set for the whole process: two at a time would store in each other's."""
    inside, most, made, guard = [0], [0], [], threading.Lock()

    def compile_slowly(self):
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        with guard:
            inside[0] -= 1
            made.append(self.__name__)
        return self.__name__

    monkeypatch.setattr(_jit.Kernel, "_compile", compile_slowly)
    kernels = [_jit.Kernel(k.function, typed=True) for k in list(TYPED.values())[:3]]
    with ThreadPoolExecutor(6) as executor:
        found = list(executor.map(lambda k: k.dispatcher, kernels * 2))
    assert found == [k.__name__ for k in kernels] * 2
    assert (most, sorted(made)) == ([1], sorted(k.__name__ for k in kernels))


@pytest.mark.kernels
def test_a_kernel_that_does_not_compile_says_so_in_one_line_where_it_is_called(compiling):
    """And stops no other that is prepared beside it."""

    @_jit.kernel
    def wrong(x: Floats, out: OutFloats) -> None:
        for i in range(x.shape[0]):
            out[i] = x[i].nothing

    @_jit.kernel
    def right(x: Floats, out: OutFloats) -> None:
        out[0] = x[0]

    _prepare.prepare([wrong, right])
    assert (wrong.signatures, right.signatures) == (0, 1)
    with pytest.raises(TickstateError) as caught:
        wrong(np.zeros(1), np.zeros(1))
    assert str(caught.value).count("\n") == 0
    assert "it does not compile: Unknown attribute 'nothing' of type float64" in str(caught.value)
    line = wrong.function.__code__.co_firstlineno + 3
    assert caught.value.where.endswith(f"wrong' ({__file__}, line {line})")


@pytest.mark.kernels
def test_without_a_cache_folder_it_compiles_all_the_same(compiling, monkeypatch):
    monkeypatch.setattr(_jit, "cache_folder", lambda *packages: None)

    @kernel
    def triple(x: Floats, out: OutFloats) -> None:
        for i in range(x.shape[0]):
            out[i] = 3.0 * x[i]

    assert not triple.is_ready()
    _prepare.prepare([triple])
    out = np.empty(1)
    triple(np.ones(1), out)
    assert out.tolist() == [3.0]
    assert not compiling.exists()


def test_a_kernel_without_a_file_compiles_all_the_same(compiling):
    names = {"__name__": "__main__"}
    source = (
        "@kernel\ndef half(x: Floats, out: OutFloats) -> None:\n    for i in range(x.shape[0]): out[i] = x[i] / 2\n"
    )
    exec(compile("from tickstate.kernels._jit import Floats, OutFloats, kernel\n" + source, "<stdin>", "exec"), names)
    out = np.empty(1)
    names["half"](np.ones(1), out)
    assert out.tolist() == [0.5]


@pytest.mark.kernels
def test_interpreted_it_is_plain_python_with_ieee_results(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")

    @helper
    def inverse(x):
        return 1.0 / x

    @kernel
    def invert(x: Floats, out: OutFloats) -> None:
        for i in range(x.shape[0]):
            out[i] = inverse(x[i])

    out = np.empty(3)
    invert(np.array([2.0, 0.0, np.nan]), out)
    np.testing.assert_array_equal(out, [0.5, np.inf, np.nan])
    assert invert.is_ready()
    assert not conftest.kernels_with_many_signatures()


@pytest.mark.parametrize(("value", "expected"), [("", False), ("0", False), ("1", True)])
def test_interpreted(monkeypatch, value, expected):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    assert _jit.interpreted() == expected


# ---- the cache folder


def numba_has_svml():
    import numba.core.config

    return numba.core.config.USING_SVML


def folder_of(package):
    """What `cache_folder` says, without its memory."""
    _jit.source_digest.cache_clear()
    return _jit._folder.__wrapped__(numba_has_svml(), package)


@pytest.mark.kernels
def test_the_cache_folder_changes_with_every_file_of_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("TICKSTATE_CACHE_DIR", str(tmp_path / "cache"))
    copy = tmp_path / "kernels"
    shutil.copytree(KERNELS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    seen = [folder_of(copy)]
    assert seen[0].parent == tmp_path / "cache"
    assert folder_of(copy) == seen[0]
    for path in sorted(copy.glob("*.py")):
        path.write_text(path.read_text() + "# edited\n")
        seen.append(folder_of(copy))
    (copy / "new.py").touch()
    (copy / "new.py").write_text("X = 1\n")
    seen.append(folder_of(copy))
    assert len(set(seen)) == len(seen)
    (copy / "notes.txt").write_text("no source")
    assert folder_of(copy) == seen[-1]


@pytest.mark.kernels
def test_the_cache_folder_is_the_users_by_default(tmp_path, monkeypatch):
    import platformdirs

    monkeypatch.delenv("TICKSTATE_CACHE_DIR", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "home" / name)
    assert folder_of(KERNELS).parent == tmp_path / "home" / "tickstate"


@pytest.mark.kernels
def test_an_unwritable_cache_folder_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("TICKSTATE_CACHE_DIR", str(tmp_path / "a file" / "below"))
    (tmp_path / "a file").touch()
    assert folder_of(KERNELS) is None  # it cannot be made
    monkeypatch.setenv("TICKSTATE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert folder_of(KERNELS) is None  # it is there, but read-only


RUN_PACKAGE = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np
from edited.outer import SUM, grow_all
ready, out = grow_all.is_ready(), np.empty(1)
grow_all(np.array([10.0]), 0, np.zeros(1, SUM), out)
print(ready, out[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["edited.inner", "edited.deep.inner", "other.inner"])
def test_an_edit_of_a_helper_in_another_file_is_seen(place, tmp_path):
    """numba's own cache would go on with the old one; the helper may be of another folder, or another package."""

    def said():
        env = os.environ | {"TICKSTATE_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_DISABLE_JIT": "0"}
        env["PYTHONDONTWRITEBYTECODE"] = "1"  # Python's own cache is blind to an edit within the second
        run = [sys.executable, "-c", RUN_PACKAGE, str(tmp_path)]
        return subprocess.run(run, check=True, capture_output=True, text=True, env=env).stdout.split()

    def write(factor):
        outer = write_package(tmp_path, "edited", factor) / "outer.py"
        outer.write_text(outer.read_text().replace("edited.inner", place))
        write_package(tmp_path / "edited", "deep", factor)
        write_package(tmp_path, "other", factor)

    write(2.0)
    assert said() == ["False", "20.0"]
    assert said() == ["True", "20.0"]
    write(3.5)
    assert said() == ["False", "35.0"]


@pytest.mark.slow
def test_the_same_sources_elsewhere_are_not_compiled_again(tmp_path):
    """Another environment or checkout: compiled code is found by what it was made of, whatever its path and time."""
    code = RUN_PACKAGE + "print(*grow_all.dispatcher.stats.cache_hits.values())"
    found = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        outer = write_package(tmp_path / place, "edited", 2.0) / "outer.py"
        os.utime(outer, (len(found) + 1.0, 0.0))
        env = os.environ | {"TICKSTATE_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_DISABLE_JIT": "0"}
        run = [sys.executable, "-c", code, str(tmp_path / place)]
        found.append(subprocess.run(run, check=True, capture_output=True, text=True, env=env).stdout.split())
    assert found == [["False", "20.0"], ["True", "20.0", "1"]]


@pytest.mark.kernels
def test_numba_is_without_svml(monkeypatch):
    """It would be there where Intel's libraries are; who has imported numba before has a cache of their own."""
    seen = []
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(
        "builtins.__import__",
        lambda *a, plain=__import__, **k: (
            seen.append(os.environ.get("NUMBA_DISABLE_INTEL_SVML")) if a[0] == "numba" else plain(*a, **k)
        ),
    )
    for before in (None, "0"):
        monkeypatch.delenv("NUMBA_DISABLE_INTEL_SVML", raising=False)
        if before is not None:
            monkeypatch.setenv("NUMBA_DISABLE_INTEL_SVML", before)
        _jit.load_numba.__wrapped__()
        assert os.environ.get("NUMBA_DISABLE_INTEL_SVML") == before, "others see what they set"
    assert seen == ["1", "1"]


@pytest.mark.kernels
def test_kernels_compiled_with_svml_are_cached_by_themselves(compiling, monkeypatch):
    import numba.core.config

    monkeypatch.setattr(numba.core.config, "USING_SVML", False)
    plain = _jit.cache_folder()
    monkeypatch.setattr(numba.core.config, "USING_SVML", True)
    assert _jit.cache_folder() != plain
    monkeypatch.delitem(sys.modules, "numba.core.config")
    assert _jit.cache_folder() == plain, "as tickstate imports it"


SCALE, TABLE, NAMED = 2.0, np.arange(3.0), np.dtype([("a", "f8")])


def scaled(x):
    return [SCALE * TABLE[0] + np.zeros(1, NAMED)["a"] + _jit.LIMIT for _ in range(2)]


@pytest.mark.kernels
def test_the_hash_of_a_kernel_is_of_all_that_is_compiled(monkeypatch):
    """Constants of any place, which need not be in any file of the package: code for others would be wrong."""
    monkeypatch.setattr(_jit, "LIMIT", 1.0, raising=False)
    seen = [_jit.code_hash(scaled)]
    assert _jit.code_hash(scaled) == seen[0]
    for name, value in (
        ("SCALE", 3.0),
        ("TABLE", np.arange(4.0)),
        ("NAMED", np.dtype([("a", "f4")])),
        ("SCALE", (3.0,)),
    ):
        monkeypatch.setitem(globals(), name, value)
        seen.append(_jit.code_hash(scaled))
    monkeypatch.setattr(_jit, "LIMIT", 2.0)
    seen.append(_jit.code_hash(scaled))
    for other in (types.SimpleNamespace(py_func=lambda: 1), types.SimpleNamespace(py_func=lambda: 2)):  # njit's
        monkeypatch.setitem(globals(), "SCALE", other)
        seen.append(_jit.code_hash(scaled))
    assert len(set(seen)) == len(seen)


@pytest.mark.kernels
def test_a_large_table_is_no_obstacle(compiling, tmp_path, monkeypatch):
    """numba does not cache a kernel with one, and names its file in a warning."""
    write_package(tmp_path, "tabled", 2.0)
    inner = tmp_path / "tabled/inner.py"
    inner.write_text(
        f"import numpy as np\nTABLE = np.full(1 << 18, 2.0)\n{inner.read_text()}".replace("2.0\n", "TABLE[0]\n")
    )
    monkeypatch.syspath_prepend(tmp_path)
    grow_all = importlib.import_module("tabled.outer").grow_all
    with pytest.warns(match="Cannot cache compiled function"):
        grow_all.dispatcher  # noqa: B018 - the property compiles
    out = np.empty(1)
    grow_all(np.array([10.0]), 0, np.zeros(1, [("total", "f8")]), out)
    assert out.tolist() == [20.0]


@pytest.mark.kernels
def test_a_helper_of_a_folder_below_is_of_the_same_package(tmp_path, monkeypatch):
    outer = write_package(tmp_path, "nested", 2.0) / "outer.py"
    outer.write_text(outer.read_text().replace("nested.inner", "nested.deep.inner"))
    write_package(tmp_path / "nested", "deep", 2.0)
    monkeypatch.syspath_prepend(tmp_path)
    grow_all = importlib.import_module("nested.outer").grow_all
    assert _jit._packages(grow_all.function) == {tmp_path / "nested"}


# ---- compiled and interpreted


COMPUTE = """
import sys; sys.path.insert(0, sys.argv[1])
import lakes, numpy as np
found = {}
for channel, lane in lakes.small_lanes().items():
    graph = lakes.graph_of(channel, params=lakes.SMALL)
    values = lakes.run_engine(graph, lane, cuts=(7, 31))
    found |= {f"{channel}/{name}": column for name, column in values.items()}
np.savez(sys.argv[2], **found)
"""


@pytest.mark.slow
def test_compiled_and_interpreted_agree_bit_for_bit(tmp_path):
    """Every feature of every channel: the coverage of the interpreted run speaks for the compiled one."""
    found = {}
    for disabled in "01":
        path = tmp_path / f"{disabled}.npz"
        env = os.environ | {"NUMBA_DISABLE_JIT": disabled}
        run = [sys.executable, "-c", COMPUTE, str(Path(lakes.__file__).parent), str(path)]
        subprocess.run(run, check=True, env=env)
        with np.load(path) as arrays:
            found[disabled] = dict(arrays)
    lakes.assert_same_bits(found["0"], found["1"])
    made = {
        f"{c}/{n}" for c in ("orderbook", "trades", "ticker") for f in lakes.features_of(c).values() for n in f.names
    }
    assert set(found["0"]) == made
    empty = [name for name, values in found["0"].items() if np.isnan(values).all()]
    assert all("_L" in name or "_band_" in name or "/ret_" in name for name in empty), empty


# ---- kernels/errors.py, which everything else imports


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "x = 3"),
        ({"where": "[run]"}, "[run]: x = 3"),
        ({"expected": "2"}, "x = 3; expected 2"),
        ({"fix": "ask"}, "x = 3; ask"),
        ({"where": "[run]", "expected": "2", "fix": "ask"}, "[run]: x = 3; expected 2; ask"),
    ],
)
def test_errors_say_what_where_expected_and_what_to_do(parts, text):
    error = TickstateError("x = 3", **parts)
    assert str(error) == text
    assert {name: getattr(error, name) for name in ("got", "where", "expected", "fix")} == (
        {"got": "x = 3", "where": "", "expected": "", "fix": ""} | parts
    )


def test_state_is_a_type_of_one_row():
    kind = State(np.dtype([("a", "i8")]))
    assert (kind.ndim, kind.writable) == (1, True)
