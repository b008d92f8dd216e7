"""Building on many machines: protocol, controller, workers, helpers and initiators.

Uses morphlib, never the other way round: commands that start daemons or talk to them import what
they need of it when they run.
"""
