"""A service or program of a cloud that repeats the key it was called with: no message shows it."""

from __future__ import annotations

import sys

import pytest
from evidence.secrets.canaries import Search, spellings
from evidence.secrets.commands import refusing_service

from spillway_router.deploy.order import DeployError
from spillway_router.deploy.perform import Shell
from spillway_router.deploy.runpod_api import RunPodClient

KEY = "Qx7TzW4nLm2/vRk9sYb+3dHc8g"


def test_runpods_refusal_is_told_without_the_key() -> None:
    with refusing_service() as url, pytest.raises(DeployError, match="RunPod answered 422: invalid key") as raised:
        RunPodClient(KEY, url).pods()
    assert not Search({"key": KEY}).names(str(raised.value).encode()), raised.value


@pytest.mark.parametrize("name", ["VAST_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "DB_PASSWORD"])
def test_a_programs_refusal_is_told_without_the_secrets_of_the_environment(name: str) -> None:
    said = " ".join(spellings(KEY))
    program = f"import os, sys; sys.exit('401 for https://x/?api_key=' + os.environ['{name}'] + {said!r})"
    with pytest.raises(DeployError, match="exited with status 1: 401 for") as raised:
        Shell({name: KEY}).run((sys.executable, "-c", program), "")
    assert not Search({"key": KEY}).names(str(raised.value).encode()), raised.value
