"""Tariffs, budgets and the attribution of cost, as pure functions."""
