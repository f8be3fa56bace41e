"""The fleet: how many GPUs to rent, from what overflow costs without them."""
