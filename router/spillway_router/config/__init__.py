"""Configuration: the settings, the file they come from, and what the router derives from them."""
