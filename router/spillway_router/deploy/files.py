"""Locate the deployment files: in the checkout (deploy/), or in the installed wheel, which carries a copy."""

from __future__ import annotations

from pathlib import Path

from spillway_router.deploy.order import DeployError

_PACKAGED = Path(__file__).resolve().parent / "files"
_CHECKOUT = Path(__file__).resolve().parents[3] / "deploy"


def deploy_file(name: str) -> Path:
    """Return the path of a file or folder of deploy/. Raises `DeployError` where the installation lacks it."""
    for folder in (_CHECKOUT, _PACKAGED):
        if (folder / name).exists():
            return folder / name
    raise DeployError(f"deploy/{name} is not part of this installation; run the command in a checkout of Spillway")
