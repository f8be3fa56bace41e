"""Where a request goes: filters, backlog, health and order of the candidates, as pure functions."""
