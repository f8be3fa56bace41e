"""Prometheus metrics of the router. Collectors read their sources when somebody scrapes, and nothing here decides."""
