"""Morph builds whole Linux systems from definitions kept in git."""
