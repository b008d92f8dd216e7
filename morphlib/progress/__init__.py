"""Listeners that show what happens: lines of text, JSON, or a live view of a terminal."""
