"""Taking away a tree, but for what other trees share with it."""

from __future__ import annotations

from morphlib.images.btrfs.extents import EXTENT_FULL_BACKREF
from morphlib.images.btrfs.layout import SHARED_BLOCK_REF
from morphlib.images.btrfs.references import References, User, tree_user
from morphlib.images.btrfs.trees import Node, TreeRoot, Trees


def drop_tree(trees: Trees, references: References, root: TreeRoot) -> None:
    """Let the tree use nothing more. Raises MorphError if it is damaged."""
    dropper = _Dropper(trees, references, root.owner)
    dropper.drop(root.bytenr, root.level, root.generation, tree_user(root.owner))


class _Dropper:
    def __init__(self, trees: Trees, references: References, tree: int) -> None:
        self._trees = trees
        self._references = references
        self._tree = tree

    def drop(self, bytenr: int, level: int, generation: int, user: User) -> None:
        references = self._references
        use = references.use(bytenr)
        node = self._trees.node(bytenr, level, generation)
        if use.count > 1:
            if self._is_own(bytenr, node):
                self._hand_over(bytenr, node)
            references.change(bytenr, user, -1)
            return
        below = tree_user(node.owner)
        if use.is_full:
            below = (SHARED_BLOCK_REF, bytenr, 0, 0)
        if level:
            for child in node.children:
                self.drop(child.blockptr, level - 1, child.generation, below)
        elif use.is_full:
            references.change_below(node, -1, parent=bytenr)
        else:
            references.change_below(node, -1, tree=node.owner)
        references.change(bytenr, user, -1)
        self._trees.fresh.pop(bytenr, None)

    def _is_own(self, bytenr: int, node: Node) -> bool:
        return node.owner == self._tree and not self._references.use(bytenr).is_full

    def _hand_over(self, bytenr: int, node: Node) -> None:
        """Others keep this block: from now on it is the block that uses what is below it."""
        self._references.change_below(node, +1, parent=bytenr)
        self._references.change_below(node, -1, tree=self._tree)
        self._references.use(bytenr).flags |= EXTENT_FULL_BACKREF
        for child in node.children:
            below = self._trees.node(child.blockptr, node.level - 1, child.generation)
            if self._is_own(child.blockptr, below):
                self._hand_over(child.blockptr, below)
