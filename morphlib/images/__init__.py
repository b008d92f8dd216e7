"""Disk images made without being root, without mounting and without loop devices."""
