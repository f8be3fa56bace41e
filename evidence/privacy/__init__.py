"""Private canaries in every field and spelling, and ordinary lines, for the detectors of private content."""
