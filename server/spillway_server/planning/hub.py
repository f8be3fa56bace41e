"""Ask a model hub for a model's configuration and the sizes of its files; nothing else is downloaded.

The two addresses are those of huggingface.co, which mirrors copy: /OWNER/NAME/raw/main/config.json, and
/api/models/OWNER/NAME?blobs=true with the size of every file. A gated model answers 401 or 403 without a token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from spillway_server.obstacle import Obstacle

_LARGEST_ANSWER = 4_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
"""What the hub calls models; anything else would change the address that is asked."""
_GATED, _ABSENT = (401, 403), 404


@dataclass(frozen=True, slots=True)
class HubModel:
    """What a hub says of a model: its config.json, the bytes of all weights (0: unknown) and of the largest file,
    whether it asks for a login, and where this was read."""

    config: Mapping[str, Any]
    weight_bytes: int
    largest_file: int
    gated: bool
    source: str


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub: its address, the user's token (empty: none), and how long one question may take in seconds."""

    endpoint: str = "https://huggingface.co"
    token: str = field(default="", repr=False)
    timeout_s: float = 10.0

    def look_up(self, name: str) -> HubModel | Obstacle:
        """Return a model's configuration and sizes, or why they can't be had. Blocks for at most four timeouts."""
        if _NAME.fullmatch(name) is None:
            return Obstacle(
                f"{name!r} is not the name of a model.",
                "Write it as OWNER/NAME, in letters, digits, points, dashes and underscores.",
            )
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        with httpx.Client(timeout=self.timeout_s, headers=headers) as client:
            try:
                config = self._get(client, f"{name}/raw/main/config.json", name)
                if isinstance(config, Obstacle):
                    return config
                listing = self._get(client, f"api/models/{name}?blobs=true", name)
                sizes = {} if isinstance(listing, Obstacle) else _sizes(listing)
                total = sum(sizes.values()) or self._index_bytes(client, name)
            except httpx.HTTPError as error:
                return Obstacle(
                    f"the hub at {self.endpoint} can't be asked about {name}: {type(error).__name__}.",
                    "Connect this machine to the network.",
                )
        gated = not isinstance(listing, Obstacle) and bool(listing.get("gated"))
        return HubModel(
            config=config,
            weight_bytes=total,
            largest_file=max(sizes.values(), default=0),
            gated=gated,
            source=f"{self.endpoint}/{name}",
        )

    def _index_bytes(self, client: httpx.Client, name: str) -> int:
        index = self._get(client, f"{name}/raw/main/model.safetensors.index.json", name)
        metadata = {} if isinstance(index, Obstacle) else index.get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, dict) else None
        return int(total) if isinstance(total, int | float) else 0

    def _get(self, client: httpx.Client, path: str, name: str) -> dict[str, Any] | Obstacle:
        with client.stream("GET", f"{self.endpoint.rstrip('/')}/{path}") as response:
            if response.status_code in _GATED:
                return _needs_login(response.headers.get("x-error-code", ""), name, bool(self.token))
            if response.status_code == _ABSENT:
                return Obstacle(f"the hub has no {path} of {name}.", "Check the spelling of the model.")
            if response.is_redirect:
                return Obstacle(f"the hub has moved {name}.", "Give the name that its page shows now.")
            if response.status_code != 200:
                return Obstacle(f"the hub answered {response.status_code} about {name}.", "Try again later.")
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > _LARGEST_ANSWER:
                    return Obstacle(f"the hub's answer about {name} is too long.", "Check the spelling of the model.")
        try:
            content = json.loads(bytes(body))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            return Obstacle(f"the hub's answer about {name} is not a JSON object.", "Check HF_ENDPOINT.")
        return content


def _needs_login(code: str, name: str, has_token: bool) -> Obstacle:
    if code == "RepoNotFound" and has_token:
        return Obstacle(f"the hub has no model {name} that your token may read.", "Check the spelling of the model.")
    if has_token:
        return Obstacle(f"{name} is gated, and your token has no access to it.", "Accept its licence on the hub.")
    return Obstacle(
        f"the hub shows {name} only with a login: it is gated, private or misspelt.",
        "Check its spelling, accept its licence on the hub, and set HF_TOKEN.",
    )


def _sizes(listing: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes of the weight files that vLLM loads: safetensors beside config.json, without copies in
    Mistral's own format."""
    files = listing.get("siblings")
    sizes: dict[str, int] = {}
    for file in files if isinstance(files, list) else ():
        name, size = (file.get("rfilename"), file.get("size")) if isinstance(file, dict) else (None, None)
        plain = isinstance(name, str) and name.endswith(".safetensors") and "/" not in name
        if plain and isinstance(size, int) and not str(name).startswith("consolidated"):
            sizes[str(name)] = size
    return sizes
