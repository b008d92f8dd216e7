"""Pages of HTML from views, and the parts of them that changed from one view to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from distbuild.status.buildview import BuildView
from distbuild.status.joblogs import Excerpt
from distbuild.status.overview import Overview
from distbuild.status.stepview import StepView, news
from distbuild.status.wording import (
    iso_time,
    say_size,
    say_span,
    say_time,
    show_output,
    ticks,
)

TEMPLATES = Path(__file__).parent / "templates"
#: Height of a lane of the timeline, and of its axis, in pixels. The style sheet has them too.
LANE, AXIS = 24, 22


class Update(msgspec.Struct, omit_defaults=True):
    """What a page is told to change. `html` and `svg` are elements that take the place of those
    with the same id, or are added to that which `data-into` names. `sizes`: heights in pixels of
    elements by id. `log` is text that comes to the end of the log. `over`: nothing more comes.
    `reload`: it is another page by now."""

    html: list[str] = []  # msgspec copies it
    svg: list[str] = []
    sizes: dict[str, int] = {}
    log: str = ""
    over: bool = False
    reload: bool = False

    @property
    def is_empty(self) -> bool:
        return self == Update()


def _percent(part: float, span: float) -> str:
    return f"{100 * part / span:.3f}%"


def _load() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters |= {"span": say_span, "clock": say_time, "iso": iso_time, "size": say_size}
    templates.globals |= {"percent": _percent, "LANE": LANE, "AXIS": AXIS, "ticks": ticks}
    return templates


_templates = _load()


def _render(template: str, **values: Any) -> bytes:
    text = _templates.get_template(template).render(**values)
    return text.encode("utf-8", "backslashreplace")


class _Parts:
    """The macros of which pages are made, each as a function that gives HTML."""

    def __init__(self, now: float) -> None:
        self._macros = _templates.get_template("parts.html").make_module({"now": now})

    def __getattr__(self, name: str) -> Callable[..., str]:
        macro = getattr(self._macros, name)
        return lambda *arguments: str(macro(*arguments)).strip()


def overview_page(view: Overview, stamp: int, now: float) -> bytes:
    return _render("overview.html", view=view, stamp=stamp, now=now)


def overview_update(before: Overview, after: Overview, now: float) -> Update:
    parts, update = _Parts(now), Update()
    if before.workers != after.workers:
        update.html.append(parts.workers(after.workers))
    if before.builds != after.builds:
        update.html.append(parts.builds(after.builds))
    if before.over != after.over:
        update.html.append(parts.over(after.over))
    if before.waiting != after.waiting:
        update.html.append(parts.waiting(after.waiting))
    return update


def build_page(view: BuildView, stamp: int, now: float) -> bytes:
    return _render("build.html", view=view, stamp=stamp, now=now)


def build_update(before: BuildView, after: BuildView, now: float) -> Update:
    """Rows, bars and lanes that changed or are new. None ever go."""
    parts, update = _Parts(now), Update()
    update.over = after.build.ended is not None
    if (before.build, before.reason, before.remaining) != (
        after.build,
        after.reason,
        after.remaining,
    ):
        update.html.append(parts.figures(after))
    is_same_path = before.critical.keys == after.critical.keys
    if not is_same_path:
        update.html.append(parts.critical(after))
    elif before.critical != after.critical:
        update.html.append(parts.path_length(after))
    old = {step.key: step for step in before.steps}
    for step in after.steps:
        if old.get(step.key) != step:
            update.html.append(parts.step_row(after.build.id, step))
            if step.is_critical and is_same_path:
                update.html.append(parts.path_step(after.build.id, step))
    lanes, line = after.timeline.lanes, after.timeline
    for number, name in enumerate(lanes):
        if before.timeline.lanes[number : number + 1] != (name,):
            update.html.append(parts.lane(number, name))
    bars = {bar.job: bar for bar in before.timeline.bars}
    update.svg = [
        parts.bar(after.build.id, bar, line.span) for bar in line.bars if bars.get(bar.job) != bar
    ]
    if before.timeline.span != line.span or len(before.timeline.lanes) != len(lanes):
        update.svg.append(parts.axis(line))
        update.sizes["chart"] = AXIS + LANE * len(lanes)
    return update


def step_page(view: StepView, log: Excerpt, stamp: int, now: float) -> bytes:
    text = show_output(log.data)
    return _render("step.html", view=view, log=text, cut=log.start, stamp=stamp, now=now)


def step_update(
    before: tuple[StepView, Excerpt], after: tuple[StepView, Excerpt], now: float
) -> Update:
    view, log = after
    was = before[0].shown
    if was is not None and view.shown is not None and was.job != view.shown.job:
        return Update(reload=True)
    parts, update = _Parts(now), Update()
    if msgspec.structs.replace(before[0], version=0) != msgspec.structs.replace(view, version=0):
        update.html += [parts.step_figures(view), parts.attempts(view)]
    lost, data = news(before[1], log)
    missing = f"\n[{say_size(lost)} are left out]\n" if lost else ""
    update.log = missing + show_output(data)
    is_running = view.shown is not None and view.shown.ended is None
    update.over = view.build.ended is not None and not is_running
    return update


def missing_page(status: int, what: str) -> bytes:
    return _render("missing.html", status=status, what=what)
