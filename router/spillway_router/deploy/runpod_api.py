"""A typed client of the part of RunPod's REST API v2 that Spillway uses.

It follows the API's OpenAPI document (runpod/schema.json holds the excerpt, with source and date). Unknown fields of an
answer are ignored, since the API is in beta and grows; a request carries only fields of the schema, since the API
rejects others with a 422.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spillway_router.core.redaction import Redactor
from spillway_router.deploy.order import DeployError
from spillway_router.deploy.perform import NotThereError

BASE_URL = "https://api.runpod.io"
TIMEOUT_S = 60.0
Action = Literal["start", "stop", "restart", "terminate"]
_Model = TypeVar("_Model", bound=BaseModel)
Status = Literal["PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"]


class _Body(BaseModel):
    """The body of a request. Field names are the API's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def json_body(self) -> dict[str, Any]:
        """Return the body as JSON values, without fields that are None."""
        return self.model_dump(mode="json", exclude_none=True)


class PodGpu(_Body):
    """A GPU type, how many of it, and the lowest CUDA version that the host's driver must support."""

    id: str
    count: int = Field(1, ge=1)
    minCudaVersion: str | None = None  # noqa: N815 - the API's name


class EndpointGpu(_Body):
    """The GPU pools of an endpoint without some of their types, how many GPUs a worker has, and the lowest CUDA version
    that the host's driver must support."""

    pools: tuple[str, ...] = Field(min_length=1)
    excludedTypes: tuple[str, ...] | None = None  # noqa: N815 - the API's name
    count: int = Field(1, ge=1)
    minCudaVersion: str | None = None  # noqa: N815 - the API's name


class NetworkMount(_Body):
    """An existing network volume and its mount point."""

    volumeId: str  # noqa: N815 - the API's name
    path: str


class Mounts(_Body):
    """The mounts of a pod; the API takes at most one network volume today."""

    network: tuple[NetworkMount, ...] = Field(max_length=1)


class _Container(_Body):
    name: str = Field(min_length=1)
    image: str = Field(min_length=1)
    disk: int = Field(ge=1)
    ports: tuple[str, ...]
    env: Mapping[str, str]


class CreatePod(_Container):
    """The body of POST /v2/pods. `disk` is in GB and is wiped at every restart."""

    gpu: PodGpu
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    mounts: Mounts | None = None
    dataCenterIds: tuple[str, ...] | None = None  # noqa: N815 - the API's name


class Workers(_Body):
    """How many workers a serverless endpoint keeps (`min`) and may have (`max`), and after how many idle seconds one
    ends."""

    min: int = Field(0, ge=0)
    max: int = Field(3, ge=0)
    idleTimeout: int = Field(300, ge=1, le=3600)  # noqa: N815 - the API's name


class Scaling(_Body):
    """When workers are added: with more requests in progress than so many per worker."""

    type: Literal["REQUEST_COUNT"] = "REQUEST_COUNT"
    requestCount: int = Field(ge=1)  # noqa: N815 - the API's name


class CreateEndpoint(_Container):
    """The body of POST /v2/serverless."""

    type: Literal["LOAD_BALANCER"] = "LOAD_BALANCER"
    gpu: EndpointGpu
    workers: Workers
    scaling: Scaling
    networkVolumes: tuple[str, ...] | None = None  # noqa: N815 - the API's name
    dataCenterIds: tuple[str, ...] | None = None  # noqa: N815 - the API's name


class Pod(BaseModel):
    """A pod as the API describes it. `cost` is in US dollars per hour, 0 while the pod is stopped."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    name: str
    status: Status
    actions: tuple[Action, ...]
    image: str
    cost: float

    @property
    def url(self) -> str:
        """The URL at which RunPod's proxy serves the pod."""
        return f"https://{self.id}-8080.proxy.runpod.net"


class Volume(BaseModel):
    """A network volume; `size` is in GB."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    name: str
    size: int
    dataCenter: str  # noqa: N815 - the API's name


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a pod's log; `at` is the time as the API writes it."""

    at: str
    source: str
    text: str


class RunPodClient:
    """Call the API. All methods raise `DeployError` with RunPod's message and what to do; the key is in no message."""

    def __init__(self, api_key: str, base_url: str = BASE_URL, timeout_s: float = TIMEOUT_S) -> None:
        self._redactor = Redactor([api_key])
        self._http = httpx.Client(
            base_url=base_url,
            timeout=timeout_s,
            headers={"authorization": f"Bearer {api_key}"},
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make one call and return the JSON of its answer, None where the answer has no body."""
        try:
            reply = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise DeployError(
                f"RunPod is unreachable ({type(error).__name__}); whether {path} took effect is unknown"
            ) from error
        _check(reply, self._redactor)
        try:
            return reply.json() if reply.content else None
        except ValueError as error:
            raise DeployError(f"RunPod answered {path} with something that is not JSON") from error

    def pod(self, pod_id: str) -> Pod:
        """Return one pod."""
        return _read(Pod, self.call("GET", f"/v2/pods/{pod_id}"))

    def pods(self) -> tuple[Pod, ...]:
        """Return all pods of the account."""
        answer = self.call("GET", "/v2/pods")
        return tuple(_read(Pod, row) for row in (answer.get("pods", ()) if isinstance(answer, dict) else ()))

    def act(self, pod_id: str, action: Action) -> Pod | None:
        """Start, stop, restart or terminate a pod and return it, None after `terminate`.

        Raises `DeployError` where the pod's state does not allow the action.
        """
        answer = self.call("POST", f"/v2/pods/{pod_id}/action", {"action": action})
        return None if answer is None else _read(Pod, answer)

    def create_volume(self, name: str, size_gb: int, data_center: str) -> Volume:
        """Create a network volume of 10 to 4096 GB."""
        body = {"name": name, "size": size_gb, "dataCenter": data_center}
        return _read(Volume, self.call("POST", "/v2/network-volumes", body))

    def logs(self, pod_id: str, tail: int = 100, source: str = "container") -> Iterator[LogLine]:
        """Yield the last `tail` lines, then new lines as they arrive, until the server or the caller stops."""
        parameters: dict[str, str | int] = {"tail": tail, "source": source}
        try:
            with self._http.stream("GET", f"/v2/pods/{pod_id}/logs", params=parameters) as reply:
                if reply.status_code != httpx.codes.OK:
                    reply.read()
                _check(reply, self._redactor)
                for line in reply.iter_lines():
                    if line.startswith("data:"):
                        row = json.loads(line.removeprefix("data:"))
                        text = self._redactor.cut(str(row.get("line", "")))  # RunPod gives the key to pods
                        yield LogLine(str(row.get("ts", "")), str(row.get("source", "")), text)
        except httpx.ReadTimeout:
            return
        except (httpx.HTTPError, ValueError) as error:
            raise DeployError(f"the log of {pod_id} was interrupted: {type(error).__name__}") from error


def _read(model: type[_Model], value: Any) -> _Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors()[:5])
        raise DeployError(f"RunPod's answer does not match its schema ({fields}); has the API changed?") from error


_ADVICE = {
    401: "check RUNPOD_API_KEY",
    403: "the key lacks the permission; create one with write access to pods",
    404: "this account has nothing with that ID; `spillway pod list` shows the pods",
    409: "the pod's state does not allow it; see `spillway pod status`",
    422: "the API rejected a field",
    429: "too many calls; wait a minute",
}


def _check(reply: httpx.Response, redactor: Redactor) -> None:
    if reply.is_success:
        return
    try:
        problem = reply.json()
        detail = "; ".join([str(problem.get("detail", "")), *map(str, problem.get("errors", []))])
    except (ValueError, AttributeError):
        detail = ""
    advice = _ADVICE.get(reply.status_code, "try again later")
    kind = NotThereError if reply.status_code == httpx.codes.NOT_FOUND else DeployError
    # Services repeat a key that they refuse.
    said = redactor.cut(detail or reply.reason_phrase)
    raise kind(f"RunPod answered {reply.status_code}: {said}; {advice}")
