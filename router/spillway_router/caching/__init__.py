"""Where answers are stored for later requests: in memory, in a SQLite file, or in Redis or Valkey."""
