"""Configuration: the settings, the file that they come from, and what the router derives from them."""
