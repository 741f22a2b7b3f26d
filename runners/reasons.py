"""Why an output is stale, in words: its file, its inputs and its definition against its commit record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tickstate.lake.commit import FORMAT, Commit
from tickstate.lake.segment import Files
from tickstate.lake.store import Place


def output_reasons(files: Files, path: Place, stat: Any, beside: Place, record: Commit | None) -> list[str]:
    """What is wrong with the output itself; ``stat``: None where it is not there, ``beside``: where its record lies."""
    if record is None:
        return ["no output yet" if stat is None else "no commit record"]
    if stat is None:
        return ["output missing"]
    found = []
    if stat.st_size != record.size:
        found.append(f"output has {stat.st_size} bytes, the record says {record.size}")
    elif not is_recorded(files, path, stat, beside, record):
        found.append("output is not the one that was recorded")
    if record.format != FORMAT:
        found.append(f"written by format {record.format}, now {FORMAT}")
    return found


def is_recorded(files: Files, path: Place, stat: Any, beside: Place, record: Commit) -> bool:
    """Whether an output is the one its record speaks of. One that is older than its record is; else its bytes say."""
    if stat.st_mtime_ns <= beside.stat().st_mtime_ns:
        return True  # the record is written last: nobody has replaced the output since
    return files.fingerprint(path) == record.file


def input_reasons(tier: str, inputs: Mapping[str, Mapping[str, str]], record: Commit, own: str = "") -> list[str]:
    """Which hours of its inputs are new, gone or changed; those beside its ``own`` one are lookback."""
    found = []
    for source, now in inputs.items():
        before = record.inputs.get(source, {})
        if now == before:
            continue
        for name in sorted(now.keys() | before.keys()):
            what = f"{tier} {source} {name}{'' if name == own or not own else ' (lookback)'}"
            if name not in before:
                found.append(f"{what} is new")
            elif name not in now:
                found.append(f"{what} is gone or no longer read")
            elif now[name] != before[name]:
                found.append(f"{what} changed")
    return found


def definition_reasons(
    now: Mapping[str, Any], settings: Mapping[str, Any], columns: list[str], record: Commit
) -> list[str]:  # fmt: skip
    """Which settings, versions, parameters or columns are others than those it was made with; all of them ``plain``."""
    if settings == record.settings and now == record.features and columns == record.columns:
        return []
    found, before = [], record.features
    for key in sorted(settings.keys() | record.settings.keys()):
        if settings.get(key) != record.settings.get(key):
            found.append(f"setting {key} was {record.settings.get(key)}, is {settings.get(key)}")
    for name in sorted(now.keys() | before.keys()):
        if name not in before:
            found.append(f"feature {name} is new")
        elif name not in now:
            found.append(f"feature {name} is no longer computed")
        elif now[name]["version"] != before[name]["version"]:
            found.append(f"feature {name} was version {before[name]['version']}, is {now[name]['version']}")
        elif now[name] != before[name]:
            found.append(f"feature {name} has other parameters")
    added = sorted(set(columns) - set(record.columns))
    if added or len(set(columns)) != len(record.columns):
        found.append(f"columns added: {', '.join(added[:4])}{', ...' if len(added) > 4 else ''}")
    return found


def plain(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A definition as it comes back from JSON: tuples are lists."""
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(definition))
