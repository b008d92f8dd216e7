"""YAML text to plain data, safely: YAML 1.1 as PyYAML's C loader reads it.

Whatever the text, the outcome is data of bounded depth and size, or a MorphError with its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from morphlib.errors import Location, MorphError, Reason

#: Definitions need about ten levels. Composing recurses once per level, in C, so it is bounded.
DEPTH_LIMIT = 100

#: What can't be deeper than this isn't looked at closely.
_SHALLOW = 2 * DEPTH_LIMIT

#: How many nodes a document may stand for once its aliases are followed.
EXPANDED_LIMIT = 500_000

#: Numbers longer than this are refused, since converting them takes quadratic time.
NUMBER_LIMIT = 200

# What may start an anchor or an alias: the character first, so that searching is fast.
_ANCHOR = re.compile(rb"&(?:(?<=[\s\[{,:?-]&)|(?<=\A&))[^\s,\[\]{}&]")
_ALIAS = re.compile(rb"\*(?:(?<=[\s\[{,:?-]\*)|(?<=\A\*))[^\s,\[\]{}*]")
_LINE_STARTS = re.compile(rb"(?:\A|[\r\n])([ ?:-]{8,})")

#: UTF-16, and line breaks besides the usual ones: what counts columns can't see those lines.
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_OTHER_BREAKS = (b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")

_MERGE_TAG = "tag:yaml.org,2002:merge"
_VALUE_TAG = "tag:yaml.org,2002:value"
_STR_TAG = "tag:yaml.org,2002:str"
_MAP_TAG = "tag:yaml.org,2002:map"
_SEQ_TAG = "tag:yaml.org,2002:seq"


@dataclass(frozen=True, slots=True)
class DuplicateKey:
    """A key that stands twice in one mapping. The last one counts."""

    key: str
    line: int
    column: int


class _Loader(yaml.CSafeLoader):
    """The safe C loader, with a bound on merges and an eye on duplicate keys."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.duplicates: list[DuplicateKey] = []
        self._merged: set[int] = set()
        self._merging: set[int] = set()
        self._merged_pairs = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        count = len(node.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) < count and id(node) not in self._merged:
            self.find_duplicates(node)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace `<<` entries by what they refer to, as YAML 1.1 has it."""
        plain = True
        for key, _ in node.value:
            if key.tag == _MERGE_TAG:
                plain = False
            elif key.tag == _VALUE_TAG:
                key.tag = _STR_TAG
        if plain:
            return
        if id(node) in self._merging:
            raise _construction_error("found a mapping that merges itself", node)
        self.find_duplicates(node)
        self._merging.add(id(node))
        merged: list[Any] = []
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                for source in self._merge_sources(value):
                    self._merged_pairs += len(source.value)
                    if self._merged_pairs > EXPANDED_LIMIT:
                        raise _construction_error("merges (<<) grow without bounds", node)
                    merged.extend(source.value)
        own = [pair for pair in node.value if pair[0].tag != _MERGE_TAG]
        node.value = merged + own
        self._merging.discard(id(node))
        self._merged.add(id(node))

    def _merge_sources(self, value: yaml.Node) -> Iterator[yaml.MappingNode]:
        # The first of several sources wins, and the last pair of a mapping wins: so in reverse.
        sources = reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise _construction_error("expected a mapping to merge (<<)", source)
            self.flatten_mapping(source)
            yield source

    def find_duplicates(self, node: yaml.MappingNode) -> None:
        """Note the keys that stand twice in a mapping."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    mark = key.start_mark
                    self.duplicates.append(DuplicateKey(key.value, mark.line + 1, mark.column + 1))
                seen.add(key.value)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        _check_number(node)
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        _check_number(node)
        return super().construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _check_number(node: yaml.Node) -> None:
    if isinstance(node, yaml.ScalarNode) and len(node.value) > NUMBER_LIMIT:
        raise _construction_error(f"found a number of {len(node.value)} characters", node)


def _construction_error(problem: str, node: yaml.Node | yaml.Event) -> yaml.MarkedYAMLError:
    mark: Any = node.start_mark  # the C parser has a class of its own for marks
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def parse(
    text: bytes, path: str, *, duplicate: Callable[[DuplicateKey], None] | None = None
) -> Any:
    """The data of a YAML document: `!!binary` as bytes, everything else as YAML 1.1 says.

    Each duplicate key is told to `duplicate`. Raises MorphError (`Syntax error in morphology ...`)
    with the place for whatever is not one well-formed, finite document.
    """
    try:
        _check_depth(text)
        loader = _Loader(text)
        data = _load_aliased(loader) if _has_aliases(text) else _load_plain(loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(path, _explain(error), *_place(error)) from error
    except yaml.reader.ReaderError as error:
        raise _syntax_error(path, *_explain_undecodable(error, text)) from error
    except RecursionError as error:
        raise _syntax_error(path, "it is nested too deeply") from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # What PyYAML's constructors raise for values such as `!!int ""` or the date 2015-02-30.
        raise _syntax_error(path, f"a value doesn't have the form of its type: {error}") from error
    if duplicate:
        for found in loader.duplicates:
            duplicate(found)
    return data


def _has_aliases(text: bytes) -> bool:
    """Whether a document may have aliases. Asked of raw text, so it may say yes for nothing."""
    if text.startswith(_UTF16):
        return True
    return bool(_ANCHOR.search(text) and _ALIAS.search(text))


def _load_aliased(loader: _Loader) -> Any:
    data = loader.get_single_data()
    _check_expansion(data)
    return data


def _load_plain(loader: _Loader) -> Any:
    """What `_load_aliased` gives, in two thirds of the time, for documents without aliases."""
    node = loader.get_single_node()
    return None if node is None else _construct(loader, node)


def _construct(loader: _Loader, node: yaml.Node) -> Any:
    tag = node.tag
    if tag == _STR_TAG and type(node) is yaml.ScalarNode:
        return node.value
    if tag == _MAP_TAG and type(node) is yaml.MappingNode:
        data = {}
        for key, value in node.value:
            if key.tag != _STR_TAG or type(key) is not yaml.ScalarNode:
                break  # a merge, or a key that isn't text
            data[key.value] = _construct(loader, value)
        else:
            if len(data) < len(node.value):
                loader.find_duplicates(node)
            return data
    elif tag == _SEQ_TAG and type(node) is yaml.SequenceNode:
        return [_construct(loader, item) for item in node.value]
    return loader.construct_object(node, deep=True)


def compose(text: bytes) -> yaml.Node | None:
    """The nodes of a document, with their places; None where they can't be had."""
    try:
        _check_depth(text)
        node: yaml.Node | None = yaml.compose(text, yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return node


def _check_depth(text: bytes) -> None:
    """Raise YAMLError where nodes lie too deep for composing, which recurses in C, to be safe.

    A flow collection takes a bracket per level, and a block collection two characters and at least
    one column. So for nearly all documents cheap counts show that there is no need to look closer.
    """
    brackets = text.count(b"[") + text.count(b"{")
    if brackets + len(text) // 2 < _SHALLOW:
        return
    plain = not text.startswith(_UTF16) and not any(sign in text for sign in _OTHER_BREAKS)
    if plain and brackets + _deepest_start(text) < _SHALLOW:
        return
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_LIMIT:
                raise _construction_error(f"nested more than {DEPTH_LIMIT} levels deep", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _deepest_start(text: bytes) -> int:
    """At least the column of the innermost node that starts a block collection."""
    return max(map(len, _LINE_STARTS.findall(text)), default=0)


def _check_expansion(data: Any) -> None:
    """Raise YAMLError where data contains itself, or is too large once aliases are followed."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()
    stack = [(data, False)]
    while stack:
        value, done = stack.pop()
        children = _children(value)
        if children is None or (id(value) in sizes and not done):
            continue
        if not done:
            if id(value) in open_:
                raise yaml.MarkedYAMLError(problem="a value contains itself")
            open_.add(id(value))
            stack.append((value, True))
            stack.extend((child, False) for child in children)
            continue
        open_.discard(id(value))
        size = 1 + sum(sizes.get(id(child), 1) for child in children)
        if size > EXPANDED_LIMIT:
            raise yaml.MarkedYAMLError(problem="aliases stand for too much data")
        sizes[id(value)] = size


def _children(value: Any) -> list[Any] | None:
    match value:
        case dict():
            return list(value.values())
        case list() | tuple() | set():
            return list(value)
        case _:
            return None


def _syntax_error(
    path: str, problem: str, line: int | None = None, column: int | None = None
) -> MorphError:
    return MorphError(
        f"Syntax error in morphology {path}: {problem}",
        reason=Reason.DEFINITION,
        location=Location(path, line, column),
    )


def _explain(error: yaml.MarkedYAMLError) -> str:
    return " ".join(part for part in (error.context, error.problem) if part) or "unreadable"


def _place(error: yaml.MarkedYAMLError) -> tuple[int | None, int | None]:
    mark = error.problem_mark or error.context_mark
    return (mark.line + 1, mark.column + 1) if mark else (None, None)


def _explain_undecodable(
    error: yaml.reader.ReaderError, text: bytes
) -> tuple[str, int | None, int | None]:
    if not isinstance(error.position, int):
        return str(error.reason), None, None
    before = text[: error.position]
    line = before.count(b"\n") + 1
    column = len(before) - (before.rfind(b"\n") + 1) + 1
    return f"{error.reason} (byte {error.position})", line, column
