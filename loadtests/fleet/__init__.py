"""Weeks of demand for a fleet, made of a real trace laid over a weekday curve."""
