"""A running router: its composition, its background services, and serving."""
