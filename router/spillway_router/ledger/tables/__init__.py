"""The tables beside the entries: keys, rentals, reviews, feedback and labels."""
