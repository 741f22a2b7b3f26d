"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tickstate.runners import KEEPS_MEMORY

DEMO = Path("demo-lake")


def main() -> None:
    """The console script ``features``: errors for people are one line, exit code 2."""
    from tickstate.kernels.errors import TickstateError

    atexit.register(gc.freeze)  # else the interpreter walks through all of numba's objects once more, to end
    try:
        sys.exit(features(standalone_mode=False) or 0)
    except TickstateError as error:
        click.echo(f"features: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(f"features: {error.strerror or error}: {error.filename or ''}; check the paths", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("features: stopped; the next run goes on where this one was", err=True)
        sys.exit(130)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tickstate")
def features() -> None:
    """Market-data Parquet to microstructure features: the same bronze gives the same bytes."""


class _PlaceType(click.ParamType):
    """A local path, or ``s3://BUCKET/PREFIX``."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A place of it."""
        from tickstate.lake.store import place

        return place(value)


_PLACE = _PlaceType()
_PLACES = (
    click.option("--lake", type=_PLACE, metavar="DIR", help="DIR or s3://BUCKET/PREFIX with bronze/, silver/, gold/."),
    click.option("--bronze", type=_PLACE, metavar="DIR", help="Where the raw data is."),
    click.option("--silver", type=_PLACE, metavar="DIR", help="Where features are written."),
    click.option("--gold", type=_PLACE, metavar="DIR", help="Where bars are written."),
)
_CHOICE = (
    click.option(
        "--tier", multiple=True, type=click.Choice(["silver", "gold"]), help="Default: each whose place is given."
    ),
    click.option("--bars", metavar="KIND,...", help="Like 60s,tick_1000,volume_auto; default: 60s,300s,900s,3600s."),
    click.option("--fill-empty", is_flag=True, help="Time bars: a flat bar for each interval without a row."),
    click.option("--channel", multiple=True, help="Channel of bronze; default: every one there is."),
    click.option("--feature", multiple=True, help="Feature, group, column or kind of bars; default: all that are on."),
    click.option("--exchange", multiple=True, help="Only these exchanges."),
    click.option("--symbol", multiple=True, help="Only these symbols."),
    click.option("--start", metavar="HOUR", help="First hour, UTC, like 2024-08-08T23."),
    click.option("--end", metavar="HOUR", help="First hour that is left out."),
    click.option("--config", type=click.Path(path_type=Path), help="A features.toml."),
    click.option("--set", "assign", multiple=True, metavar="NAME.PARAM=VALUE", help="Override a parameter."),
)
_WATCH = (
    click.option("--poll", type=click.FloatRange(0.01), default=5.0, help="Watcher: seconds between looks [5]."),
    click.option("--grace", type=click.FloatRange(0), default=900.0, help="Watcher: wait for silent channels [900 s]."),
    click.option("--refresh", type=click.FloatRange(0), default=0.0, help="Watcher: seconds between rewrites [0]."),
    click.option("--once", is_flag=True, help="Watcher: catch up and exit."),
    click.option("--metrics-port", type=click.IntRange(0, 65535), help="Watcher: /metrics, /healthz on 127.0.0.1."),
)
_JSON = click.option("--json", "as_json", is_flag=True, help="The result as JSON.")


def _options(*groups: Any) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed([o for group in groups for o in group]):
            command = option(command)
        return command

    return decorate


@features.command()
@click.option("--runner", type=click.Choice(["single", "batch", "watcher"]), default="batch", show_default=True)
@_options(_PLACES, _CHOICE)
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes of this machine; default: cores.")
@click.option(
    "--executor",
    default="local",
    show_default=True,
    metavar="WHERE",
    help="Batch: local, dask (a cluster of --workers processes here), dask://HOST:PORT or dask:SCHEDULER_FILE.",
)
@click.option(
    "--demo", is_flag=True, help=f"Make a small synthetic lake first (in --lake, or ./{DEMO}), and run on it."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and why.")
@_options(_WATCH)
@_JSON
def run(
    runner: str, workers: int | None, executor: str, demo: bool, dry_run: bool, as_json: bool, **chosen: Any
) -> int:
    """Compute what is missing or stale, and nothing else."""
    if executor != "local" and runner != "batch":
        raise click.UsageError(f"--executor {executor} is for --runner batch: {runner} works in its own process")
    if runner != "watcher":  # which has an hour's rows at most now, and lives on
        os.environ.setdefault(*KEEPS_MEMORY)
    from tickstate.runners import report
    from tickstate.runners.run import run_batch, run_single

    if demo:
        chosen.update(lake=_demo(chosen), bronze=None)
    selection = _selection(chosen)
    if dry_run:
        return _show_plan(selection, as_json)
    with report.Progress() as observer:
        if runner == "watcher":
            return _watch(selection, observer, chosen, as_json)
        summary = (
            run_single(selection, observer) if runner == "single" else run_batch(selection, workers, executor, observer)
        )
    click.echo(report.as_json(summary.as_dict()) if as_json else report.summary_text(summary))
    return summary.exit_code


@features.command()
@_options(_PLACES, _CHOICE)
@_JSON
def plan(as_json: bool, **chosen: Any) -> int:
    """Which partitions are stale, and why. Computes nothing."""
    return _show_plan(_selection(chosen), as_json)


@features.command()
@_options(_PLACES, _CHOICE)
@click.option("--left", type=_PLACE, metavar="DIR", help="Compare this silver ...")
@click.option("--right", type=_PLACE, metavar="DIR", help="... with this one, instead of running anything.")
@_JSON
def parity(left: Any, right: Any, as_json: bool, **chosen: Any) -> int:
    """All three runners on a selection (or two existing lakes), compared column by column."""
    from tickstate.runners import report
    from tickstate.runners.parity import compare_lakes, compare_runners
    from tickstate.runners.selection import NOWHERE

    if (left is None) != (right is None):
        raise click.UsageError("--left and --right go together")
    if left is not None and right is not None:
        found = {f"{left} | {right}": compare_lakes(left, right)}
    else:
        if chosen["lake"] is None:  # each runner writes to folders of its own
            chosen.update({name: chosen[name] or NOWHERE.with_name(name) for name in ("silver", "gold")})
        found = compare_runners(_selection(chosen), lambda name: click.echo(f"running {name}", err=True))
    click.echo(report.parity_text(found, as_json))
    return 1 if any(c.differ for columns in found.values() for c in columns) else 0


@features.command()
@click.option("--lake", type=_PLACE, metavar="DIR", help="DIR or s3://BUCKET/PREFIX with bronze/, silver/, gold/.")
@click.option("--bronze", type=_PLACE, metavar="DIR", help="Check this bronze.")
@click.option("--silver", type=_PLACE, metavar="DIR", help="Check this silver.")
@click.option("--gold", type=_PLACE, metavar="DIR", help="Check this gold.")
@click.option("--prune", is_flag=True, help="Remove partitions whose bronze is gone (with --bronze and --silver).")
@_JSON
def validate(lake: Any, bronze: Any, silver: Any, gold: Any, prune: bool, as_json: bool) -> int:
    """The partition contract: paths, order, schema, checksums, records, coverage. Exit code 1 on any breach."""
    from tickstate.runners import report
    from tickstate.runners.validation import validate_lake

    bronze, silver = bronze or (lake and lake / "bronze"), silver or (lake and lake / "silver")
    if gold is None and lake is not None and (lake / "gold").is_dir():
        gold = lake / "gold"
    if bronze is None and silver is None and gold is None:
        raise click.UsageError("nothing to check: give --bronze DIR, --silver DIR, --gold DIR or --lake DIR")
    if prune and (bronze is None or silver is None):
        raise click.UsageError("--prune needs both --bronze and --silver")
    found = validate_lake(bronze, silver, gold, prune)
    click.echo(report.validation_text(found, as_json))
    return 1 if found.findings else 0


@features.command("list")
@_JSON
def list_features(as_json: bool) -> int:
    """All features: channel, group, columns, and the package they come from. Exit code 1: a plugin is left out."""
    from tickstate.features.registry import default_registry
    from tickstate.runners import report

    click.echo(report.list_text(as_json))
    for error in default_registry().left_out:
        click.echo(f"left out: {error}", err=True)
    return 1 if default_registry().left_out else 0


@features.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="The reference page of all built-ins, in Markdown.")
@_JSON
def describe(name: str | None, every: bool, as_json: bool) -> None:
    """A feature (or group, or column): formula, unit, null rule, inputs, lookback, parameters."""
    from tickstate.runners import report
    from tickstate.runners.reference import reference

    if (name is None) != every:
        raise click.UsageError("give a NAME, or --all")
    click.echo(reference() if name is None else report.describe_text(name, as_json))


@features.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--only", multiple=True, metavar="CHECK", help="Only this check, by name.")
@click.option("--versions", type=click.Path(path_type=Path), help="File of versions; default: beside the module.")
@click.option("--renew", is_flag=True, help="Write that file anew; refused where numbers changed and versions did not.")
@_JSON
def check(names: tuple[str, ...], only: tuple[str, ...], versions: Path | None, renew: bool, as_json: bool) -> int:
    """Hold features (groups, columns; default: every built-in) to all that the engine counts on, check by check."""
    from tickstate.runners import catalog

    if renew:
        click.echo(catalog.renew_text(names, versions))
        return 0
    found = catalog.check_features(names, only, versions)
    click.echo(catalog.check_text(found, as_json))
    return 1 if any(r.outcome == "failed" for r in found) else 0


@features.command()
@click.option("--feature", "names", multiple=True, metavar="NAME", help="Feature, group or column; default: all.")
@click.option("--dot", is_flag=True, help="As Graphviz reads it: features graph --dot | dot -Tsvg > features.svg")
def graph(names: tuple[str, ...], dot: bool) -> None:
    """What reads what: features, the columns they read, and who makes them."""
    from tickstate.features import drawing
    from tickstate.features.registry import default_registry

    found = drawing.edges(default_registry(), names)
    click.echo(drawing.as_dot(found) if dot else drawing.as_text(found))


@features.command()
@click.argument("name")
@click.option(
    "--kind",
    default="step",
    show_default=True,
    metavar="KIND",
    help="row, step, window, joined (trades too) or bar.",
)
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Folder to make; default: ./tickstate-NAME.")
def new(name: str, kind: str, folder: Path | None) -> None:
    """A package with a feature of your own: class, kernel, naive reference, tests. Installs and passes as it is."""
    from tickstate.features.scaffold import write_package

    click.echo(write_package(name, kind, folder))


def _watch(selection: Any, observer: Any, chosen: dict[str, Any], as_json: bool) -> int:
    from contextlib import ExitStack

    from tickstate.runners import report
    from tickstate.runners.watcher import Pace, Watcher, stopping_on_signals

    pace = Pace(chosen["poll"], chosen["grace"], chosen["refresh"])
    with ExitStack() as stack:
        if chosen["metrics_port"] is not None:
            from tickstate.runners.metrics import Metrics

            observer = Metrics(observer, stale_after=max(60.0, 10 * pace.poll))
            port = stack.enter_context(observer.served(chosen["metrics_port"]))
            click.echo(f"metrics on http://127.0.0.1:{port}/metrics", err=True)
        watcher = Watcher(selection, pace, observer)
        stack.enter_context(stopping_on_signals(watcher))
        summary = watcher.run(chosen["once"])
    click.echo(report.as_json(summary.as_dict()) if as_json else report.summary_text(summary))
    return summary.exit_code if chosen["once"] else 0


def _show_plan(selection: Any, as_json: bool) -> int:
    from tickstate.runners import report
    from tickstate.runners.run import plan_tiers

    click.echo(report.plan_text(plan_tiers(selection), as_json))
    return 0


def _selection(chosen: dict[str, Any]) -> Any:
    from tickstate.lake.names import parse_hour
    from tickstate.runners.config import load_config
    from tickstate.runners.selection import NOWHERE, Selection

    lake, tiers = chosen["lake"], chosen["tier"]
    places = {name: chosen[name] or (lake and lake / name) for name in ("bronze", "silver", "gold")}
    if not tiers:
        tiers = tuple(
            t for t in ("silver", "gold") if places[t] and (t == "gold" or places["bronze"] or not places["gold"])
        )
        tiers = tiers or ("silver",)
    needed = {"silver": ("bronze", "silver"), "gold": ("silver", "gold")}
    for name in (n for tier in tiers for n in needed[tier]):
        if places[name] is None:
            raise click.UsageError(f"no place for {name}: give --{name} DIR, or --lake DIR (or --demo to try it)")
    bars = tuple(dict.fromkeys(b.strip() for b in (chosen["bars"] or "").split(",") if b.strip()))
    if (bars or chosen["fill_empty"]) and "gold" not in tiers:
        raise click.UsageError("bars are gold: give --gold DIR, or --lake DIR")
    assign = [*chosen["assign"], *(["time_bars.fill_empty=true"] if chosen["fill_empty"] else [])]
    return Selection(
        bronze=places["bronze"] or NOWHERE, silver=places["silver"], gold=places["gold"],
        tiers=tiers, bars=bars,
        channels=chosen["channel"], exchanges=chosen["exchange"],
        symbols=chosen["symbol"], start=parse_hour(chosen["start"]) if chosen["start"] else None,
        end=parse_hour(chosen["end"]) if chosen["end"] else None, features=chosen["feature"] or None,
        config=load_config(chosen["config"], assign),
    )  # fmt: skip


def _demo(chosen: dict[str, Any]) -> Any:
    from tickstate.lake.demo import ensure_demo

    lake = chosen["lake"] or DEMO
    if chosen["bronze"]:
        raise click.UsageError("--demo makes its own bronze: leave --bronze away")
    made = ensure_demo(lake / "bronze")
    click.echo(f"demo lake: {lake} ({'made now' if made else 'there already'})", err=True)
    return lake
