"""Replay: the past requests through another policy and a model of the engine, without sending anything."""
