"""The sub-commands of `spillway`, one module per noun; cli.py mounts them."""
