"""The two-sided cost report: what it contains, and how each format shows it."""
