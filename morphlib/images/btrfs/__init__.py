"""btrfs images: made from trees in one go, read, and upgraded in one transaction.

`model` has the values that say what goes in, `create` makes images, `reader` reads them and
`upgrade` changes them. What is on disk follows the kernel's `btrfs_tree.h` (the structures) and the
btrfs documentation's pages on the on-disk format, its kernel's tree checker (what is refused) and
`btrfs check`.
"""
