"""Numbered SQL files for SQLite, NNNN_title.sql, each applied once in the order of their numbers."""
