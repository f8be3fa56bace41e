"""What the router remembers in memory between requests, within bounds."""
