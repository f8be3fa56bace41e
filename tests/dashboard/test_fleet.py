"""The Fleet page: the decision of `spillway fleet explain`, or what the configuration lacks for one."""

from __future__ import annotations

from pathlib import Path

import httpx
from evidence.dashboard.scene import business

from spillway_router.testing.harness import routing

HTML = {"accept": "text/html"}
LOCAL = "{name: local, provider: vllm, local: true, model: m, base_url: 'http://127.0.0.1:9/v1'}"


async def test_the_page_says_what_the_command_says(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=20) as scene:
        client: httpx.AsyncClient = scene.router.client
        figures = (await client.get("/fleet.json?since=4w")).json()
        assert figures["gpus"] == 0
        assert figures["rented"] == 1
        assert figures["requests"] > 400
        assert figures["reasons"][0]["sentence"].startswith("GPU 1: the overflow without it has not cost enough")
        page = (await client.get("/fleet?since=4w", headers=HTML)).text
        assert "There should be 0 GPUs; " in page
        assert "the overflow without it has not cost enough for a start" in page


async def test_what_is_missing_for_a_decision_is_said(tmp_path: Path) -> None:
    async with routing(f"backends: [{LOCAL}]\n", tmp_path) as router:
        figures = (await router.client.get("/fleet.json")).json()
        assert figures["missing"].startswith("There is no `fleet` in the configuration.")
        page = (await router.client.get("/fleet", headers=HTML)).text
        assert "can&#39;t be said yet" in page or "can't be said yet" in page
