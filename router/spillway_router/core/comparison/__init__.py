"""Whether two groups differ, by intervals that may be looked at every day."""
