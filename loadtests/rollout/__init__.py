"""Requests of real clients while machines, routers and engines come and go (`fleet.lost_requests`)."""
