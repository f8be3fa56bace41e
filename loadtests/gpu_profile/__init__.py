"""Measures what an engine on its hardware can do, and turns it into settings of the router and of the cost report.

fit.py      from timings to rates (no clock, no I/O)
probe.py    the requests and their timings
result.py   the versioned result file, and the settings that follow from it
engine.py   starts `spillway serve` with the flags of a profile, or uses a running engine
"""
