"""The HTTP client of the relay path: a keep-alive pool over one connection type."""
