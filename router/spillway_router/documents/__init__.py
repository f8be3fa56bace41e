"""Documents: read the values of a schema from a text, in steps of rising cost, and queue the rest for a person."""
