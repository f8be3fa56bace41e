"""GPU rental periods and their fixed cost."""
