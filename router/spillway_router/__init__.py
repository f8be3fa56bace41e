"""Spillway router: speaks the OpenAI API in front of a GPU and spills over to the cloud."""

from spillway_router import compiled

compiled.use()
