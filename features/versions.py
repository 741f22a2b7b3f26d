"""Whether a feature's version was raised when what it computes changed: a file of versions and hashes.

Of each feature the file holds its version, a hash of its kernel's code (with every helper and constant that it
calls; comments, docstrings and layout do not count) and hashes of its columns on a fixed lane: ``outputs`` of their
first six digits, which other machines agree on, ``bits`` of all, which only says on one machine whether renewing
without a new version is harmless.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tickstate.features.base import Feature, FeatureError
from tickstate.features.checking_data import make_lane, run_lane
from tickstate.features.graph import Graph
from tickstate.kernels._jit import Kernel, named

FILE = "versions.json"
ROWS, SEED = 160, 11

Record = dict[str, Any]


def code_hash(kernel: Any) -> str:
    """A hash of the code of a kernel: its own, of the helpers it calls, and the constants that they use."""
    found: dict[str, str] = {}
    _collect(kernel, found, set())
    return _digest("\n".join(f"{name}\n{text}" for name, text in sorted(found.items())).encode())


def _collect(kernel: Any, found: dict[str, str], seen: set[Any]) -> None:
    """Add the source of a kernel and of all that it calls, in whatever module that stands, by name."""
    function = inspect.unwrap(getattr(kernel, "function", getattr(kernel, "py_func", kernel)))
    if not inspect.isfunction(function):
        function = type(function).__call__
    if function in seen:
        return
    seen.add(function)
    name = function.__qualname__
    if name in found:  # two modules may each have a helper of this name
        name = f"{function.__module__}.{name}"
    found[name] = _normalised(function)
    for key, value in named(function):
        if isinstance(value, Kernel) or hasattr(value, "py_func"):  # ours, or somebody's own njit
            _collect(value, found, seen)
        elif not isinstance(value, ModuleType) and not callable(value):
            found[f"{name}: {key}"] = _constant(value)


def _constant(value: Any) -> str:
    """All of a constant: the text of a long array would leave most of it out."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {_digest(np.ascontiguousarray(value).tobytes())}"
    return repr(value)


def _normalised(function: Any) -> str:
    """Source without comments, docstring and decorators, in one layout whatever the Python version."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if isinstance(tree, ast.FunctionDef):
        tree.decorator_list = []
        if ast.get_docstring(tree) is not None:
            tree.body = tree.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def record_of(graph: Graph, name: str) -> Record:
    """What the file holds of the feature ``name`` of a graph that computes it."""
    feature = next(f for f in graph.features if f.name == name)
    columns = run_lane(graph, make_lane(graph.channel, ROWS, SEED, gaps=0.04))
    upstream = {f.name: f.version for f in sorted(graph.upstream(feature), key=lambda f: f.name) if f is not feature}
    return make_record(feature, {n: columns[n] for n in feature.names}, upstream)


def make_record(feature: Feature, columns: Mapping[str, np.ndarray], inputs: Mapping[str, int]) -> Record:
    """A record of these columns on a fixed lane; ``inputs``: versions of the features that are read."""
    rounded = "\n".join(f"{n} {' '.join(f'{x:.5e}' for x in v)}" for n, v in columns.items())
    bits = b"".join(n.encode() + np.ascontiguousarray(v).tobytes() for n, v in columns.items())
    return {
        "version": feature.version, "code": code_hash(feature.kernel), "outputs": _digest(rounded.encode()),
        "bits": _digest(bits), "inputs": dict(inputs),
    }  # fmt: skip


def problem(old: Record | None, new: Record) -> str:
    """What is wrong between the file's record and the code; empty if nothing is."""
    if old is None:
        return "not in the versions file"
    if old["version"] != new["version"]:
        return f"version is {new['version']}, the file says {old['version']}"
    if old["code"] != new["code"]:
        return f"the kernel's code changed and version is still {new['version']}"
    if old["outputs"] != new["outputs"] and old["inputs"] == new["inputs"]:
        return f"its columns changed and version is still {new['version']}"
    return "" if old["outputs"] == new["outputs"] else "what it reads has a new version"


def renewed(old: Record | None, new: Record, where: str) -> Record:
    """The record to keep, or a ``FeatureError`` where the numbers changed and the version did not.

    Code that changed without a bit of the columns changing may be renewed; so may a feature whose inputs have
    a new version, since a partition knows the versions of all that it was computed with.
    """
    if old is not None and old["version"] > new["version"]:
        raise FeatureError(f"version {new['version']}", where=where, expected=f"{old['version']} or more")
    if old is None or old["version"] != new["version"] or old["bits"] == new["bits"]:
        return new
    if old["inputs"] != new["inputs"] and old["code"] == new["code"]:
        return new
    if old["code"] == new["code"] and old["outputs"] == new["outputs"]:
        return old  # the same code on another CPU
    raise FeatureError(
        f"its columns changed and version is still {new['version']}", where=where,
        expected=f"version {new['version'] + 1}", fix="raise version in the class, then renew again",
    )  # fmt: skip


def load(path: Path) -> dict[str, Record]:
    """The records of a versions file by ``channel/feature``; none if it is not there."""
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise FeatureError(str(error), where=str(path), expected="JSON, as features check --renew writes it") from error


def save(path: Path, records: Mapping[str, Record]) -> None:
    """Write a versions file, one feature a line, so that a change is one line in a review."""
    lines = [f"  {json.dumps(key)}: {json.dumps(records[key], sort_keys=True)}" for key in sorted(records)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def beside(feature: type) -> Path | None:
    """The versions file beside the module of a feature class, if the class has a file."""
    try:
        return Path(inspect.getfile(feature)).with_name(FILE)
    except (OSError, TypeError):
        return None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=10).hexdigest()
