"""Where requests enter: the HTTP frontend of the inference routes, and the ASGI application."""
