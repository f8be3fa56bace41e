"""What asyncio code shares: tasks that end in order, and writes of one loop turn sent together."""
