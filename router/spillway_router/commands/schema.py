"""`spillway schema`: print the JSON schema of the configuration."""

from __future__ import annotations

import json

import typer

from spillway_router.config.settings import Settings


def schema() -> None:
    """Print the JSON schema of spillway.yaml, for editors."""
    typer.echo(json.dumps(Settings.model_json_schema(), indent=2))
