"""A library for people who write deployment extensions in Python."""
