"""Launches vLLM: hardware -> plan -> supervise -> ready."""
