"""What makes content private: keywords, patterns and content that cannot be read."""
