"""What pacing gets out of a budget, against the best that was possible."""
