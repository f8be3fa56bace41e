"""The scripted upstream: an HTTP server that answers in OpenAI's and Anthropic's shapes without a model."""
