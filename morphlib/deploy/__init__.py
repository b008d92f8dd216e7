"""Putting systems somewhere: cluster → plan → checks → tree → configure → write."""
