"""A LoRA adapter by name: `spillway up` with server.loras, real vLLM on the CPU, a backend per adapter."""

from __future__ import annotations

import json
import random
import re
import struct
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from loadtests.demo.product import free_ports
from tests.e2e.running import ROOT, await_ready, running, write

from spillway_router import config
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, exact, generate, prompt

ENGINE_LIMIT_S = 280.0
READY = re.compile(r"^engine ready after")
RANK, HIDDEN = 8, 256


def adapter(folder: Path, strength: float) -> Path:
    """A LoRA on the demo model's q projections, as PEFT saves one; strength 0 leaves every answer as it is."""
    chance = random.Random(1)
    tensors: dict[str, tuple[list[int], bytes]] = {}
    for layer in range(3):
        for name, shape, spread in (("A", [RANK, HIDDEN], 0.1), ("B", [HIDDEN, RANK], strength)):
            values = [chance.gauss(0, spread) if spread else 0.0 for _ in range(RANK * HIDDEN)]
            key = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{name}.weight"
            tensors[key] = (shape, struct.pack(f"<{len(values)}f", *values))
    header, place = {}, 0
    for key, (shape, data) in tensors.items():
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + len(data)]}
        place += len(data)
    text = json.dumps(header).encode()
    folder.mkdir()
    weights = b"".join(data for _, data in tensors.values())
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + weights)
    about = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**about, "task_type": "CAUSAL_LM"}))
    return folder


@pytest.mark.engine
def test_each_adapter_answers_under_its_alias(tmp_path: Path) -> None:
    """The silent adapter answers like the model itself; the loud one, routed by another name, doesn't."""
    if not (ROOT / ".venv-vllm" / "bin" / "python").exists():
        pytest.skip("the engine's environment .venv-vllm is missing: run `make install`")
    (port,) = free_ports(1)
    loras = {name: str(adapter(tmp_path / name, strength)) for name, strength in (("quiet", 0.0), ("loud", 0.5))}
    base = {"provider": "vllm", "local": True, "base_url": f"http://127.0.0.1:{port}/v1"}
    names = {"local": "demo", "quiet": "quiet", "loud": "loud"}
    settings = {
        "server": {"model": "demo", "loras": loras},
        "backends": [{"name": name, "model": model, **base} for name, model in names.items()],
        "aliases": {"auto": {"chain": ["local"]}, "quiet": {"chain": ["quiet"]}, "loud": {"chain": ["loud"]}},
        "slo": {"ttft_ms": 60_000, "tpot_ms": 10_000},
    }
    document = generate(HELD_OUT_SEEDS[0])
    answers = {}
    with running("up", write(tmp_path, settings)) as product:
        url = product.url
        product.says(READY, ENGINE_LIMIT_S)
        for backend in names:
            await_ready(url, backend)
        for alias in ("auto", "quiet", "loud"):
            body = {"model": alias, "messages": prompt(document.text), "temperature": 0, "max_tokens": 100}
            reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False)
            assert reply.status_code == 200, reply.text
            assert reply.headers["x-spillway-backend"] == {"auto": "local"}.get(alias, alias)
            answers[alias] = reply.json()["choices"][0]["message"]["content"]
    assert exact(answers["auto"], document.truth)
    assert answers["quiet"] == answers["auto"]
    assert answers["loud"] != answers["auto"]


def test_the_configurations_in_the_docs_are_valid() -> None:
    page = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len(blocks) == 2
    for block in blocks:
        settings = config.parse(block, {})
        told: dict[str, Any] = yaml.safe_load(block)
        assert [backend.model for backend in settings.backends] == [b["model"] for b in told["backends"]]
