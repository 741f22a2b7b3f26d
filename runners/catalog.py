"""What the command line says about features as such: checks of them, and their versions file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tickstate.features.base import FeatureError
from tickstate.features.checks import check_feature, renew_versions
from tickstate.features.registry import BUILT_IN, Entry, Registry, default_registry
from tickstate.runners.report import as_json


def check_features(names: Sequence[str], only: Sequence[str], versions: Path | None) -> list[Any]:
    """The results of every check of what ``names`` select, default the built-ins."""
    if versions is not None and not versions.exists():
        raise FeatureError(f"{str(versions)!r}", where="--versions", expected="a file that is there", fix="see --renew")
    registry = default_registry()
    return [
        result
        for entry in _chosen(names, registry)
        for result in check_feature(entry.feature, only or None, registry=registry, versions_file=versions)
    ]


def check_text(found: Iterable[Any], json: bool = False) -> str:
    """Each check with what it found, and how many passed."""
    found = list(found)
    if json:
        return as_json([vars(r) for r in found])
    lines, count = [], {"passed": 0, "failed": 0, "waived": 0}
    width = max((len(r.check) for r in found), default=0)
    for i, r in enumerate(found):
        if i == 0 or (r.feature, r.channel) != (found[i - 1].feature, found[i - 1].channel):
            lines.append(f"{r.feature} ({r.channel})")
        lines.append(f"  {r.outcome}  {r.check:{width}}  {r.reason}".rstrip())
        count[r.outcome] += 1
    return "\n".join([*lines, f"{len(found)} checks: " + ", ".join(f"{n} {what}" for what, n in count.items())])


def renew_text(names: Sequence[str], versions: Path | None) -> str:
    """Renew a versions file; which records changed."""
    registry = default_registry()
    changed = renew_versions(_chosen(names, registry), registry, versions)
    return "\n".join([*(f"{file}: {key}" for key, file in changed), f"{len(changed)} records changed"])


def _chosen(names: Sequence[str], registry: Registry) -> list[Entry]:
    found = [e for name in names for e in registry.find(name)]
    return list(dict.fromkeys(found)) if names else [e for e in registry if e.package == BUILT_IN]
