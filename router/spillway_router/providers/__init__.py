"""Adapters for wire protocols and the transport that opens sockets."""
