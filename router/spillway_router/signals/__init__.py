"""What is known of every backend right now."""
