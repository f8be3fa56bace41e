"""A running router: its parts, their start and their end."""
