"""What the cache gives to whom, on generated requests."""
