"""Where connections arrive: the HTTP front end and the control application."""
