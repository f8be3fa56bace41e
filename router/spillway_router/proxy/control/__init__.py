"""The control API: every route that is not an inference route."""
