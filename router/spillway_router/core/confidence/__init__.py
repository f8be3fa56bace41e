"""How sure an answer is, and whether it is escalated, as pure functions."""
