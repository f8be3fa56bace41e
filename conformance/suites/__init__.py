"""One module for each suite; conformance/registry.py lists them."""
