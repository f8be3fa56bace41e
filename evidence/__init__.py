"""Every promise with a number, and the command that measures it: `python -m evidence` (`make evidence`)."""
