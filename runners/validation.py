"""``features validate`` over whole tiers."""

from __future__ import annotations

from dataclasses import dataclass, field

from tickstate.features.base import BARS
from tickstate.lake.errors import LakeError
from tickstate.lake.listing import gold_channels, list_channel
from tickstate.lake.schema import BRONZE
from tickstate.lake.store import Place, snapshot
from tickstate.lake.validate import Coverage, Finding, coverage, prune, validate_bronze, validate_output


@dataclass
class Validation:
    """What was checked and found."""

    files: int = 0
    findings: list[Finding] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def validate_lake(
    bronze: Place | None, silver: Place | None, gold: Place | None = None, remove: bool = False
) -> Validation:  # fmt: skip
    """Check every file of the tiers given; ``remove``: partitions whose source is gone."""
    found = Validation()
    for name, root in (("bronze", bronze), ("silver", silver)):
        if root is not None and not any((root / channel).is_dir() for channel in BRONZE):
            raise LakeError("no channel in it", where=f"{name} {root}", expected=f"a folder {', '.join(BRONZE)}")
    for channel in BRONZE:
        source = list_channel(bronze, channel) if bronze is not None else None
        if source is not None:
            found.files += sum(len(s) for hours in source.lanes.values() for s in hours.values())
            found.findings += validate_bronze(source)
        if silver is None:
            continue
        output = list_channel(silver, channel)
        if remove and source is not None:
            found.removed += prune(silver, output, source)
            output = list_channel(silver, channel)
        found.files += sum(len(s) for hours in output.lanes.values() for s in hours.values())
        found.findings += validate_output(snapshot(silver), output, source)
        found.coverage += coverage(snapshot(silver), output)
    for channel in gold_channels(gold) if gold is not None else ():
        source = list_channel(silver, BARS[channel.partition("/")[0]]) if silver is not None else None
        output = list_channel(gold, channel)
        if remove and source is not None:
            found.removed += prune(gold, output, source)
            output = list_channel(gold, channel)
        found.files += sum(len(s) for hours in output.lanes.values() for s in hours.values())
        found.findings += validate_output(snapshot(gold), output, source)
    return found
