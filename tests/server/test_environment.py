"""The engine gets what it reads of the environment, and none of the router's secrets."""

from __future__ import annotations

import pytest

from spillway_server.environment import PASSED_VARIABLE, engine_environment

SECRETS = {
    "GROQ_API_KEY": "canary",
    "OPENAI_API_KEY": "canary",
    "MINE_KEY": "canary",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "RUNPOD_API_KEY": "canary",
    "VAST_API_KEY": "canary",
    "LEDGER_PASSWORD": "canary",
    "SPILLWAY_YAML": "canary",
    "SPILLWAY_YAML_BASE64": "canary",
    "SPILLWAY_METRICS_TOKEN": "canary",
    "SPILLWAY_LEDGER_URL": "postgresql://canary",
    "WEBHOOK_SECRET": "canary",
    "VLLM_SERVER_DEV_MODE": "canary",
}
NEEDED = {
    "PATH": "/usr/bin",
    "LD_LIBRARY_PATH": "/x",
    "CUDA_VISIBLE_DEVICES": "0",
    "HF_HOME": "/models",
    "HF_TOKEN": "hub",
    "VLLM_CACHE_ROOT": "/cache",
    "NCCL_DEBUG": "INFO",
    "https_proxy": "http://proxy:3128",
    "LC_ALL": "C",
}


def test_the_engine_gets_no_secret_of_the_router(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, **NEEDED, "MY_PLUGIN": "on"}.items():
        monkeypatch.setenv(name, value)
    passed = engine_environment((("VLLM_X", "1"), ("HF_HOME", "/other")))
    assert "canary" not in str(passed)
    assert "MY_PLUGIN" not in passed
    assert {name: passed[name] for name in NEEDED} == NEEDED
    assert passed["VLLM_X"] == "1"
    monkeypatch.setenv(PASSED_VARIABLE, "MY_PLUGIN, OTHER")
    assert engine_environment(())["MY_PLUGIN"] == "on"
