"""What a request asks for, read from its text: its complexity, its task and its language. Pure values and functions."""
