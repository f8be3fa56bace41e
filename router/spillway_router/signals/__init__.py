"""What is known of every backend at the moment, and the watchers that find it out."""
