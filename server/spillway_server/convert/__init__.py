"""From a GGUF file, an Ollama modelfile or a Hugging Face directory to a checkpoint that vLLM serves quickly."""
