"""Fuzzing of a running router: made-up requests over sockets, and what must never follow from them."""
