"""Which requests may be answered from the cache, and what makes two of them the same."""
