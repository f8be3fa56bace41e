"""What pacing gains from a budget, against the best that was possible."""
