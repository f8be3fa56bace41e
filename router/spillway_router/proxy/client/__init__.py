"""The side of an exchange that talks to the caller."""
