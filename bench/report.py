"""Shows what a run of the benchmark found, as tables for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from bench.results import Build, Report, What, median_wall


def format_report(report: Report) -> str:
    sections = (
        _format_machine(report),
        _format_builds(report),
        _format_peaks(report),
        _format_queries(report),
        _format_shares(report),
        _format_floors(report),
        _format_goals(report),
    )
    return "\n\n".join(section for section in sections if section)


def _format_machine(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    text = (
        f"{versions}; {report.builders} builders; {machine.cpus} CPUs, Linux {machine.kernel}, "
        f"Python {machine.python}, as {machine.user} user; medians of {report.rounds} rounds"
    )
    if "buildstream" not in report.versions:
        text += "\nBuildStream is not installed (see setup-buildstream): Morph is measured alone."
    return text


def _format_builds(report: Report) -> str:
    samples: dict[tuple[str, int, What, str], list[Build]] = {}
    for build in report.builds:
        samples.setdefault((build.graph, build.chunks, build.what, build.tool), []).append(build)
    kinds = list(dict.fromkeys(key[:3] for key in samples))
    rows = [
        _row_of_builds(report, samples[(*kind, tool)])
        for kind in kinds
        for tool in report.versions
        if (*kind, tool) in samples
    ]
    heads = ("graph", "build", "tool", "wall s", "min", "max", "CPU s", "ms/chunk", "Morph is")
    return _table(heads, rows)


def _row_of_builds(report: Report, builds: Sequence[Build]) -> tuple[str, ...]:
    """`builds` are of one tool, graph and kind."""
    tool, graph, chunks, what = (
        builds[0].tool,
        builds[0].graph,
        builds[0].chunks,
        builds[0].what,
    )
    wall = statistics.median(build.wall for build in builds)
    mine = median_wall(report.builds, "morph", graph, what)
    faster = f"{wall / mine:.1f} x faster" if mine and tool != "morph" else ""
    return (
        f"{graph} ({chunks} chunks)",
        what,
        tool,
        f"{wall:.3f}",
        f"{min(build.wall for build in builds):.3f}",
        f"{max(build.wall for build in builds):.3f}",
        f"{statistics.median(build.cpu for build in builds):.3f}",
        f"{wall / chunks * 1000:.1f}",
        faster,
    )


def _format_peaks(report: Report) -> str:
    heads = ("graph", "build", "tool", "peak of all processes MB", "largest process MB")
    rows = [
        (p.graph, p.what, p.tool, f"{p.tree / 1e6:.0f}", f"{p.largest / 1e6:.0f}")
        for p in report.peaks
    ]
    return _table(heads, rows)


def _format_queries(report: Report) -> str:
    rows = [
        (
            f"morph {query.what}",
            query.subject,
            f"{statistics.median(query.walls):.3f}",
            f"{min(query.walls):.3f}",
            f"{max(query.walls):.3f}",
        )
        for query in report.queries
    ]
    return _table(("command", "of", "wall s", "min", "max"), rows) if rows else ""


def _format_shares(report: Report) -> str:
    rows = [(share.part, f"{share.milliseconds:.1f}") for share in report.shares]
    return _table(("where the time of a cold chunk goes", "ms"), rows)


def _format_floors(report: Report) -> str:
    rows = [
        (floor.what, f"{floor.wall:.1f}", "" if floor.cpu is None else f"{floor.cpu:.1f}")
        for floor in report.floors
    ]
    return _table(("the least it takes on this machine", "wall ms", "CPU ms"), rows)


def _format_goals(report: Report) -> str:
    rows = [
        (
            goal.what,
            f"{goal.value:.3f}",
            f"{goal.limit:.3f}" + (" s" if goal.unit == "seconds" else ""),
            "met" if goal.met else "MISSED",
        )
        for goal in report.goals
    ]
    return _table(("goal", "measured", "at most", ""), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they need to be; those that hold figures are aligned to the right."""
    lines = [tuple(heads), *map(tuple, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    right = [all(_is_figure(line[i]) for line in lines[1:]) for i in range(len(heads))]
    text = []
    for line in lines:
        cells = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        )
        text.append("  ".join(cells).rstrip())
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def _is_figure(cell: str) -> bool:
    return not cell or cell.replace(".", "", 1).isdigit()
