"""Shadows: arms of experiments that no client sees."""
