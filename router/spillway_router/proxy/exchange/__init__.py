"""One request from its decision to its record. Start reading at exchange.py."""
