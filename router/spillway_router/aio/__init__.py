"""Asyncio helpers: tasks that end in order, periodic work, and writes that are sent together."""
