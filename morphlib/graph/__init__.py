"""What there is to build: sources, artifacts, edges, order and keys.

`build_graph` is a function from frozen values to one frozen value; no file, repository, clock or
environment is read in this folder.
"""
