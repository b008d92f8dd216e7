"""Circles in dependencies, found without recursion, however deep the graph is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def find_cycles(
    nodes: Iterable[Node], needs: Callable[[Node], Iterable[Node]]
) -> Iterator[list[Node]]:
    """Yield circles among what nodes need: at least one for each group that is in a circle.

    Each circle is listed from the node where it was entered, along what needs what; the last one
    listed needs the first. Every edge is followed once.
    """
    finished: set[Node] = set()
    for start in nodes:
        if start in finished:
            continue
        way: dict[Node, int] = {start: 0}  # the nodes being walked, in order, with their depth
        stack = [iter(needs(start))]
        while stack:
            node = next(stack[-1], None)
            if node is None:
                stack.pop()
                done, _ = way.popitem()
                finished.add(done)
            elif node in way:
                yield list(way)[way[node] :]
            elif node not in finished:
                way[node] = len(way)
                stack.append(iter(needs(node)))
