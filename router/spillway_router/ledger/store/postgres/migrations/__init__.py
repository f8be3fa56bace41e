"""Numbered SQL files for PostgreSQL, NNNN_title.sql, applied once each in the order of their numbers."""
