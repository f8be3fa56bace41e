"""A model hub over real HTTP: configuration, sizes, logins, and everything that can go wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from spillway_router.testing.threaded_server import threaded_server
from spillway_server.obstacle import Obstacle
from spillway_server.planning.hardware import Hardware
from spillway_server.planning.hub import Hub
from spillway_server.planning.models import ModelSpec, Sources, resolve

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
FILES = [
    {"rfilename": "model-00001-of-00002.safetensors", "size": 4_000_000_000},
    {"rfilename": "model-00002-of-00002.safetensors", "size": 1_000_000_000},
    {"rfilename": "consolidated.safetensors", "size": 5_000_000_000},
    {"rfilename": "original/model.safetensors", "size": 5_000_000_000},
    {"rfilename": "README.md", "size": 9_000},
]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, allowed = self.path, self.headers.get("authorization") == "Bearer hf_right"
        if path.startswith("/org/gated/") and not allowed:
            self._send(401, {"error": "gated"}, {"x-error-code": "GatedRepo"})
        elif path.endswith("/raw/main/config.json") and not path.startswith("/org/absent"):
            self._send(200, [1] if path.startswith("/org/list/") else {**CONFIG, "torch_dtype": "bfloat16"})
        elif path.startswith("/api/models/org/unlisted"):
            self._send(500, {})
        elif path.startswith("/api/models/"):
            self._send(200, {"siblings": FILES, "gated": "manual" if "gated" in path else False})
        elif path.endswith("model.safetensors.index.json"):
            self._send(200, {"metadata": {"total_size": 2_471_645_608}})
        else:
            self._send(404, {})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with threaded_server(_Handler) as url:
        yield url


def resolved(name: str, hub: Hub) -> ModelSpec | Obstacle:
    return resolve(name, Hardware((), 2, 2**34), Sources(Path("/nonexistent"), hub))


def test_configuration_and_sizes_are_read(endpoint: str) -> None:
    model = resolved("org/plain", Hub(endpoint))
    assert isinstance(model, ModelSpec), model
    assert model.shape is not None
    assert (model.shape.weight_bytes, model.shape.largest_file) == (5_000_000_000, 4_000_000_000)
    assert (model.shape.layers, model.shape.max_len, model.gated) == (16, 8192, False)
    assert endpoint in model.origin


def test_without_a_listing_the_index_names_the_size(endpoint: str) -> None:
    model = resolved("org/unlisted", Hub(endpoint))
    assert isinstance(model, ModelSpec), model
    assert model.shape is not None
    assert model.shape.weight_bytes == 2_471_645_608


def test_a_gated_model_wants_a_token(endpoint: str) -> None:
    closed = resolved("org/gated", Hub(endpoint))
    assert isinstance(closed, Obstacle)
    assert "HF_TOKEN" in closed.fix
    wrong = resolved("org/gated", Hub(endpoint, "hf_wrong"))
    assert isinstance(wrong, Obstacle)
    assert "no access" in wrong.reason
    assert "hf_wrong" not in wrong.reason + wrong.fix
    opened = resolved("org/gated", Hub(endpoint, "hf_right"))
    assert isinstance(opened, ModelSpec), opened
    assert opened.gated


@pytest.mark.parametrize(("name", "reason"), [("org/absent", "has no"), ("org/list", "not a JSON object")])
def test_what_is_not_there_is_said(endpoint: str, name: str, reason: str) -> None:
    obstacle = resolved(name, Hub(endpoint))
    assert isinstance(obstacle, Obstacle)
    assert reason in obstacle.reason
    assert "--force" in obstacle.fix


@pytest.mark.parametrize("name", ["a/b\nc", "a/b?x=1", "../b", "a/b/c", "a/\u00fc", "", "a b"])
def test_what_no_model_is_called_is_refused_before_the_hub_is_asked(name: str) -> None:
    obstacle = Hub("http://127.0.0.1:9").look_up(name)
    assert isinstance(obstacle, Obstacle)
    assert "is not the name of a model" in obstacle.reason


def test_a_hub_out_of_reach_is_said() -> None:
    obstacle = resolved("org/plain", Hub("http://127.0.0.1:9", timeout_s=2))
    assert isinstance(obstacle, Obstacle)
    assert "can't be asked" in obstacle.reason
    assert "--model-config" in obstacle.fix
