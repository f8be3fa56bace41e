"""Documents: from a text to the values of a schema, in steps that cost more and more, and the queue for the rest."""
