"""Tests of building on many machines."""
