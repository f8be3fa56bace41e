"""Build the container's spillway.yaml and its environment. Secrets appear by name here, never by value."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import yaml

from spillway_router.config.settings import LimitsPart
from spillway_router.deploy.order import PORT, STOP_REST_S, DeploymentOrder

CONFIG_VARIABLE = "SPILLWAY_YAML"
"""The whole spillway.yaml as text, since most GPU markets can't mount a file. The image's start script writes it to
disk."""
ENCODED_VARIABLE = "SPILLWAY_YAML_BASE64"
"""The same in base64, for targets that don't preserve line ends and quotes."""
ACCESS_VARIABLE = "SPILLWAY_ACCEPT_KEY"
"""`ID:SHA256` of the first API key; the start script enters it into the ledger."""


def settings_text(order: DeploymentOrder, data: str = "/data") -> str:
    """Return the machine's spillway.yaml: the user's own, or one for this order.

    `data` is a directory that outlives the container.
    """
    if order.yaml:
        return order.yaml
    server: dict[str, Any] = {"model": order.model, "vllm_args": list(order.engine_args)}
    if order.force:
        server["force"] = True
    if order.loras:
        server["loras"] = dict(order.loras)
    engine = {"provider": "vllm", "base_url": "http://127.0.0.1:8001/v1"}
    backends: list[dict[str, Any]] = [{"name": "local", **engine, "model": order.served_model}]
    backends += [{"name": name, **engine, "model": name} for name in order.loras]
    backends += [{"name": provider, "provider": provider, "model": model} for provider, model in order.clouds]
    settings = {
        "listen": f"0.0.0.0:{PORT}",
        "server": server,
        "gpu": {
            "name": order.gpu,
            "price_per_hour": str(order.price_per_hour),
            "count": order.count,
            "kind": order.kind,
        },
        "backends": backends,
        "ledger": {"url": f"sqlite:///{data}/spillway.db"},
    }
    if order.budget_per_day is not None and order.clouds:
        settings["budgets"] = [{"scope": "all", "period": "day", "limit_usd": f"{order.budget_per_day:f}"}]
    return yaml.safe_dump(settings, sort_keys=False)


def stop_s(limits: LimitsPart) -> int:
    """Return how long a machine with these limits may take to stop, in seconds."""
    return math.ceil(limits.stop_unready_s + limits.stop_s) + STOP_REST_S


def environment(order: DeploymentOrder, root: str = "", encoded: bool = False) -> dict[str, str]:
    """Return the container's variables, without any secret.

    `root` is a mounted volume that holds ledger, models and compiled kernels instead of the image's own volumes;
    `encoded` passes the configuration in base64.
    """
    text = settings_text(order, f"{root}/data")
    config = {ENCODED_VARIABLE: base64.b64encode(text.encode()).decode()} if encoded else {CONFIG_VARIABLE: text}
    variables = {**config, "HF_HOME": f"{root}/models"}
    if root:
        caches = {"VLLM_CACHE_ROOT": "vllm", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
        variables |= {name: f"{root}/cache/{folder}" for name, folder in caches.items()}
        variables["SPILLWAY_WRITES"] = f"/data {root}/data {root}/models {root}/cache"
    if order.access is not None:
        variables[ACCESS_VARIABLE] = f"{order.access.id}:{order.access.sha256}"
    return variables


def with_references(variables: Mapping[str, str], secrets: tuple[str, ...], form: str) -> dict[str, str]:
    """Add one variable per secret, whose value is the target's reference to it: `form` with {name} replaced."""
    return {**variables, **{name: form.replace("{name}", name) for name in secrets}}


def pin_notes(image: str) -> tuple[str, ...]:
    """Return notes about an image that is named by a tag only, since the tag may mean other bytes tomorrow."""
    if "@sha256:" in image:
        return ()
    inspect = f"docker buildx imagetools inspect {image} --format '{{{{.Manifest.Digest}}}}'"
    return (
        f"The image is not pinned: {image} may mean other bytes at the next start. After the push, look up its digest "
        f"({inspect}) and pass --image {image}@sha256:... instead.",
        "The digest says nothing about the base image: build with --build-arg VLLM_DIGEST=@sha256:... "
        "(docs/deploy/containers.md).",
    )
