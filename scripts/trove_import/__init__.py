"""Makes a local git trove from distribution packages, tarballs and plain directories.

The same input gives the same commits on every machine, so definitions can pin them.
"""
