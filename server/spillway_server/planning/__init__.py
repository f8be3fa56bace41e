"""From a GPU and a model to the vLLM command line, as pure arithmetic."""
