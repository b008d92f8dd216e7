"""How often sources were asked for, and were there: by what they are called, day by day.

Who asks for what is not there tells names of artifacts alone, not of the source that they belong
to; so counts are kept by what the names of one question have in common, and given to sources when
somebody looks, by the names that are known then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import msgspec

DAYS = 30  # that are kept
MOST = 20_000  # names that are kept

#: What split rules call the parts of chunks if nobody says otherwise.
_PARTS = ("bins", "libs", "devel", "doc", "locale", "misc")


#: Whatever a file says, nothing was asked for less than never.
Count = Annotated[int, msgspec.Meta(ge=0)]


class Label(NamedTuple):
    """What was asked for: the kind, and what the names of the artifacts have in common."""

    kind: str
    name: str


class Tally(NamedTuple):
    """Questions after something that was there, and that was not."""

    hits: Count
    misses: Count


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a source was asked for in the last days, and the last of them (since 1970)."""

    kind: str
    name: str
    hits: int
    misses: int
    day: int

    @property
    def asked(self) -> int:
        return self.hits + self.misses

    @property
    def part(self) -> float:
        """Which part of what was asked for was there."""
        return self.hits / self.asked if self.asked else 0.0


#: Label -> day -> counts.
Tallies = Mapping[Label, Mapping[int, Tally]]


def merge(*parts: Tallies) -> dict[Label, dict[int, Tally]]:
    """The sum of all."""
    found: dict[Label, dict[int, Tally]] = {}
    for part in parts:
        for label, days in part.items():
            into = found.setdefault(label, {})
            for day, (hits, misses) in days.items():
                before = into.get(day, Tally(0, 0))
                into[day] = Tally(before.hits + hits, before.misses + misses)
    return found


def fade(tallies: Tallies, today: int) -> dict[Label, Mapping[int, Tally]]:
    """What is not too old, nor of a day that a wrong clock told; of too much, what was asked for
    last and most."""
    recent = range(today - DAYS + 1, today + 2)
    kept = {
        label: {day: tally for day, tally in days.items() if day in recent}
        for label, days in tallies.items()
    }

    def weight(label: Label) -> tuple[int, int]:
        return max(kept[label]), sum(sum(tally) for tally in kept[label].values())

    labels = [label for label, days in kept.items() if days]
    if len(labels) > MOST:
        labels = sorted(labels, key=weight, reverse=True)[:MOST]
    return {label: kept[label] for label in labels}


def rates(tallies: Tallies, known: Collection[Label]) -> dict[Label, Rate]:
    """The counts of sources, of which `known` are the names."""
    found: dict[Label, Rate] = {}
    for label, days in tallies.items():
        owner = owner_of(label, known)
        before = found.get(owner)
        hits = sum(tally.hits for tally in days.values()) + (before.hits if before else 0)
        misses = sum(tally.misses for tally in days.values()) + (before.misses if before else 0)
        day = max(max(days, default=0), before.day if before else 0)
        found[owner] = Rate(owner.kind, owner.name, hits, misses, day)
    return found


def owner_of(label: Label, known: Collection[Label]) -> Label:
    """The source that artifacts of these names are of: a known one, or what is most likely."""
    kind, name = label
    while name:
        if Label(kind, name) in known:
            return Label(kind, name)
        name = name.rpartition("-")[0]
    if kind == "system":
        return Label(kind, label.name.removesuffix("-rootfs"))
    stem, _, part = label.name.rpartition("-")
    return Label(kind, stem) if kind == "chunk" and stem and part in _PARTS else label


def common_name(names: Iterable[str]) -> str:
    """What names of artifacts of one source have in common; "" if that is nothing.

    A single name is all that there is to know.
    """
    given = list(names)
    # What the first and the last in order have in common, all have.
    first, last = min(given), max(given)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    # Of zlib-devel and zlib-doc it is zlib, not zlib-d.
    while same and any(name[same : same + 1] not in ("", "-", ".") for name in given):
        same -= 1
    return first[:same].rstrip("-.")


_decoder = msgspec.json.Decoder(dict[str, dict[str, dict[int, Tally]]])


def encode_tallies(tallies: Tallies) -> bytes:
    """As JSON: kind -> name -> day -> [hits, misses]."""
    document: dict[str, dict[str, Mapping[int, Tally]]] = {}
    for label, days in tallies.items():
        document.setdefault(label.kind, {})[label.name] = days
    return msgspec.json.encode(document)


def decode_tallies(raw: bytes) -> dict[Label, dict[int, Tally]]:
    """What was encoded. Anything else is worth as much as nothing."""
    try:
        document = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return {
        Label(kind, name): days
        for kind, names in document.items()
        for name, days in names.items()
    }  # fmt: skip
