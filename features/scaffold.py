"""``features new``: a package with a feature of one's own, complete, installable, and passing every check."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from pathlib import Path
from string import Template

from tickstate.features import package_files, templates
from tickstate.features.base import FeatureError, near
from tickstate.features.registry import RESERVED, Registry, default_registry


def write_package(name: str, kind: str, folder: Path | None = None, registry: Registry | None = None) -> str:
    """Write the package of a feature called ``name``; returns what to do next. Nothing there is overwritten."""
    if kind not in templates.KINDS:
        raise FeatureError(f"{kind!r}", where="--kind", fix=near(kind, templates.KINDS))
    check_name(name, registry or default_registry())
    folder = folder or Path(package_name(name))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FeatureError(
            f"{str(folder)!r} is there already", where="--dir", fix="give another folder: none is changed"
        )
    files = dict(_files(name, templates.KINDS[kind]))
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return "\n".join(
        [
            *(str(folder / path) for path in files),
            f"next: pip install -e {folder} && features check {name}   (then change src/{module_name(name)}/{name}.py)",
        ]
    )


def check_name(name: str, registry: Registry) -> None:
    """A name for a feature, its column, its class and its modules, that nobody has yet."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name) or "__" in name or keyword.iskeyword(name):
        near_it = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
        near_it = near_it.lstrip("_0123456789").rstrip("_")
        near_it = f"{near_it}_feature".lstrip("_") if keyword.iskeyword(near_it) or len(near_it) < 2 else near_it
        raise FeatureError(
            f"name {name!r}", expected="lower-case letters, digits and single _, two or more",
            fix=f"for example {near_it!r}",
        )  # fmt: skip
    for entry in registry:
        if name in (entry.feature.name, entry.feature.group, *entry.names):
            raise FeatureError(
                f"name {name!r} is taken by {entry.feature.name!r} of package {entry.package!r}",
                fix=f"choose another, for example 'my_{name}'",
            )
    if name in RESERVED:
        raise FeatureError(f"name {name!r} is reserved", fix=f"choose another, for example 'my_{name}'")


def module_name(name: str) -> str:
    """The import package of a new feature."""
    return f"tickstate_{name}"


def package_name(name: str) -> str:
    """The distribution of a new feature, and its folder by default.

    >>> package_name("price_range")
    'tickstate-price-range'
    """
    return f"tickstate-{name.replace('_', '-')}"


def class_name(name: str) -> str:
    """The class of a new feature.

    >>> class_name("price_range")
    'PriceRange'
    """
    return "".join(part.capitalize() for part in name.split("_"))


def _files(name: str, kind: templates.Kind) -> Iterator[tuple[str, str]]:
    words = {
        "name": name, "cls": class_name(name), "module": module_name(name), "package": package_name(name),
        "about": kind.about,
    }  # fmt: skip
    words["test"] = Template(kind.test).substitute(words).strip()
    words["run"] = Template(kind.run).substitute(words)
    words["notes"] = kind.notes.strip()
    tables = [t for t in ("book_table", "parametrize_with_checks", "trade_table") if t in kind.test or t[0] == "p"]
    words["helps"] = "math" if "math." in kind.test else "itertools"
    words["tables"] = ", ".join(tables)
    for path, text in (
        ("pyproject.toml", package_files.PYPROJECT),
        ("README.md", package_files.README),
        ("src/$module/__init__.py", package_files.INIT),
        ("src/$module/$name.py", kind.module),
        ("tests/test_$name.py", package_files.TEST),
    ):
        yield Template(path).substitute(words), Template(text).substitute(words)
