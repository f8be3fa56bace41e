"""The control API beside the inference routes."""
