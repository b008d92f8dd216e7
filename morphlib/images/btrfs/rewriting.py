"""Changing B-trees by copying: new blocks for what changes, up to a new root.

These are functions of a tree and the changes. They know nothing of who else uses a block.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from morphlib.images.btrfs.layout import HEADER_SIZE, ITEM, KEY_PTR, Child, Key
from morphlib.images.btrfs.trees import Data, Node, TreeRoot, Trees

#: A key and the item's new content; None to take it away.
Edit = tuple[Key, Data | None]
#: Gives the address of a new block.
Allocate = Callable[[], int]


@dataclass(slots=True)
class Rewritten:
    """A changed tree: the new root, new blocks by address, and blocks that it had before.

    Of the latter, each stands after the one that it was found through.
    """

    root: TreeRoot
    fresh: dict[int, Node] = field(default_factory=dict)
    replaced: list[tuple[int, Node]] = field(default_factory=list)


@dataclass(slots=True)
class Rewriter:
    """`loosened` bytes of each leaf are left free, or more."""

    trees: Trees
    owner: int
    generation: int
    allocate: Allocate
    loosened: int = 0
    _fresh: dict[int, Node] = field(default_factory=dict)
    _replaced: list[tuple[int, Node]] = field(default_factory=list)

    def rewrite(self, root: TreeRoot, edits: Sequence[Edit]) -> Rewritten:
        """Apply edits, which are sorted by key. Raises MorphError if the tree is damaged."""
        if not edits:
            return Rewritten(root)
        children = self._descend(root.bytenr, root.level, root.generation, edits)
        return self._finish(children, root.level)

    def build(self, items: Iterable[tuple[Key, Data]]) -> Rewritten:
        """A new tree of items, which are sorted by key."""
        return self._finish(self._leaves(items), 0)

    def _finish(self, children: list[Child], level: int) -> Rewritten:
        if not children:
            level = 0
            children = [self._add(Node(self.owner, 0, self.generation, [], [], []), Key(0, 0, 0))]
        while len(children) > 1:
            level += 1
            children = self._nodes(children, level)
        root = TreeRoot(self.owner, children[0].blockptr, level, self.generation)
        return Rewritten(root, self._fresh, self._replaced)

    def _descend(
        self, bytenr: int, level: int, generation: int, edits: Sequence[Edit]
    ) -> list[Child]:
        node = self.trees.node(bytenr, level, generation)
        self._replaced.append((bytenr, node))
        if level == 0:
            return self._leaves(merge(node, edits))
        children: list[Child] = []
        items: list[tuple[Key, Data]] = []
        for child, part in _share_out(node.children, edits):
            if not part:
                children += self._leaves(items)
                items = []
                children.append(child)
            elif level == 1:  # leaves that change are packed together
                leaf = self.trees.node(child.blockptr, 0, child.generation)
                self._replaced.append((child.blockptr, leaf))
                items += merge(leaf, part)
            else:
                children += self._descend(child.blockptr, level - 1, child.generation, part)
        children += self._leaves(items)
        return self._nodes(children, level)

    def _leaves(self, items: Iterable[tuple[Key, Data]]) -> list[Child]:
        found: list[Child] = []
        size = self.trees.volume.superblock.node_size - HEADER_SIZE - self.loosened
        room = size
        keys: list[Key] = []
        contents: list[Data] = []
        for key, data in items:
            needed = ITEM.size + len(data)
            if needed > room and keys:
                found.append(self._leaf(keys, contents))
                keys, contents, room = [], [], size
            keys.append(key)
            contents.append(data)
            room -= needed
        if keys:
            found.append(self._leaf(keys, contents))
        return found

    def _leaf(self, keys: list[Key], contents: list[Data]) -> Child:
        return self._add(Node(self.owner, 0, self.generation, keys, contents, []), keys[0])

    def _nodes(self, children: list[Child], level: int) -> list[Child]:
        """Nodes that have these children, equally many each."""
        most = (self.trees.volume.superblock.node_size - HEADER_SIZE) // KEY_PTR.size
        count = -(-len(children) // most)
        found = []
        for number in range(count):
            start, end = (len(children) * each // count for each in (number, number + 1))
            part = children[start:end]
            keys = [each.key for each in part]
            node = Node(self.owner, level, self.generation, keys, [], part)
            found.append(self._add(node, keys[0]))
        return found

    def _add(self, node: Node, key: Key) -> Child:
        bytenr = self.allocate()
        self._fresh[bytenr] = node
        return Child(key, bytenr, self.generation)


def merge(leaf: Node, edits: Sequence[Edit]) -> Iterator[tuple[Key, Data]]:
    """The items of a leaf after edits."""
    at = 0
    for key, data in edits:
        until = bisect_left(leaf.keys, key, at)
        yield from zip(leaf.keys[at:until], leaf.items[at:until], strict=True)
        at = until
        if at < len(leaf.keys) and leaf.keys[at] == key:
            at += 1
        if data is not None:
            yield key, data
    yield from zip(leaf.keys[at:], leaf.items[at:], strict=True)


def _share_out(
    children: Sequence[Child], edits: Sequence[Edit]
) -> Iterator[tuple[Child, Sequence[Edit]]]:
    """Each child with the edits that belong there; the first also has those before it."""
    at = 0
    for number, child in enumerate(children):
        if number + 1 == len(children):
            until = len(edits)
        else:
            until = at
            if at < len(edits) and edits[at][0] < children[number + 1].key:
                until = bisect_left(edits, children[number + 1].key, at, key=_key_of)
        yield child, edits[at:until]
        at = until


def _key_of(edit: Edit) -> Key:
    return edit[0]
