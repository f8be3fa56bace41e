"""Numbered SQL files for PostgreSQL, NNNN_title.sql, each applied once in the order of their numbers."""
