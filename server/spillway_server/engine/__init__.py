"""The vLLM process: launch, supervision and readiness."""
