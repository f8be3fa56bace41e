"""RunPod: a pod through REST v2, or a serverless endpoint that balances load (template and notes in runpod/).

Secrets are references to RunPod's own store: RunPod resolves `{{ RUNPOD_SECRET_GROQ_API_KEY }}` when the pod starts.
"""

from __future__ import annotations

from spillway_hardware.gpus import GPUS
from spillway_router.deploy.container import environment, settings_text, with_references
from spillway_router.deploy.order import (
    CUDA,
    NUMBER,
    PORT,
    PRICE,
    SWITCH,
    Accepted,
    DeployError,
    DeploymentOrder,
    DeploymentPlan,
    Request,
    Run,
    Save,
    gpu_of,
)
from spillway_router.deploy.runpod_api import (
    CreateEndpoint,
    CreatePod,
    EndpointGpu,
    Mounts,
    NetworkMount,
    PodGpu,
    Scaling,
    Workers,
)

NAMES = {name: gpu.targets.runpod for name, gpu in GPUS.items() if gpu.targets.runpod is not None}
SECRET = "{{ RUNPOD_SECRET_{name} }}"  # noqa: S105 - a reference, resolved by RunPod
VOLUME = "/workspace"
_BALANCED = {"PORT": str(PORT), "PORT_HEALTH": str(PORT), "HEALTH_CHECK_PATH": "/ping"}
"""What RunPod's load balancer reads: where a worker serves, and where it asks for its health."""
SERVERLESS_VOLUME = "/runpod-volume"


class RunPod:
    """Rent pods and serverless endpoints."""

    name = "runpod"
    key_variable = "RUNPOD_API_KEY"
    serves_when_made = False
    log_command = "spillway pod logs ID"
    accepted = Accepted(
        settings={
            "community": SWITCH,
            "cuda": CUDA,
            "serverless": SWITCH,
            "workers_min": NUMBER,
            "workers_max": NUMBER,
            "requests_per_worker": "[1-9][0-9]{0,5}",
            "idle_s": "[1-9][0-9]{0,2}|[12][0-9]{3}|3[0-5][0-9]{2}|3600",  # the API's maximum
        },
        name=r"[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,189}[^\s\x00-\x1f\x7f])?",
        place="[A-Z]{2,3}(-[A-Z0-9]+)+",
        volumes=True,
        volume_roots=(VOLUME, SERVERLESS_VOLUME),
    )

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Create the pod with one POST; it starts by itself."""
        if order.options.get("serverless") == "1":
            return self._serverless(order)
        if order.interruptible:
            raise DeployError("RunPod's REST v2 rents no interruptible pods; omit --interruptible, or use vast or aws")
        root = VOLUME if order.volume else ""
        variables = _variables(order, root)
        body = CreatePod(
            name=order.name,
            image=order.image,
            gpu=PodGpu(id=gpu_of(NAMES, order, self.name).id, count=order.count, minCudaVersion=order.cuda),
            cloud="COMMUNITY" if order.options.get("community") == "1" else "SECURE",
            disk=order.disk_gb,
            ports=(f"{PORT}/http",),
            env=with_references(variables, order.secrets, SECRET),
            mounts=Mounts(network=(NetworkMount(volumeId=order.volume, path=VOLUME),)) if order.volume else None,
            dataCenterIds=(order.place,) if order.place else None,
        )
        step = Request(
            why="rent the pod and start it",
            method="POST",
            path="/v2/pods",
            body=body.json_body(),
            save=Save("pod", ("id",)),
            price=Save(PRICE, ("cost",)),
        )
        return DeploymentPlan(self.name, (step,), "{pod}", _notes(order, f"https://POD_ID-{PORT}.proxy.runpod.net"))

    def _serverless(self, order: DeploymentOrder) -> DeploymentPlan:
        names = gpu_of(NAMES, order, self.name)
        least, most = int(order.options.get("workers_min", "0")), int(order.options.get("workers_max", "2"))
        if most < 1 or least > most:
            raise DeployError(
                f"--set workers_max={most}: it must be at least 1, and not less than workers_min ({least})"
            )
        root = SERVERLESS_VOLUME if order.volume else ""
        variables = {**_variables(order, root), **_BALANCED}
        body = CreateEndpoint(
            name=order.name,
            image=order.image,
            gpu=EndpointGpu(
                pools=(names.pool,),
                excludedTypes=names.excluded or None,
                count=order.count,
                minCudaVersion=order.cuda,
            ),
            disk=order.disk_gb,
            ports=(f"{PORT}/http",),
            env=with_references(variables, order.secrets, SECRET),
            workers=Workers(
                min=least,
                max=most,
                idleTimeout=int(order.options.get("idle_s", "300")),
            ),
            scaling=Scaling(requestCount=int(order.options.get("requests_per_worker", "32"))),
            networkVolumes=(order.volume,) if order.volume else None,
            dataCenterIds=(order.place,) if order.place else None,
        )
        step = Request(
            why="create the endpoint",
            method="POST",
            path="/v2/serverless",
            body=body.json_body(),
            save=Save("endpoint", ("id",)),
        )
        notes = (
            "RunPod's load balancer cuts an answer after 5.5 minutes, answers 400 if no worker is ready within 2 "
            "minutes, and takes bodies of at most 30 MB.",
            "It is billed by the second of use, so no rental is recorded (docs/deploy/runpod.md).",
            *_notes(order, "https://ENDPOINT_ID.api.runpod.ai"),
        )
        return DeploymentPlan(self.name, (step,), "serverless/{endpoint}", notes)

    def address(self, handle: str, run: Run) -> str:
        """Return the address at RunPod's proxy; an endpoint's workers only start with its first request."""
        del run
        kind, _, endpoint = handle.rpartition("/")
        return f"https://{endpoint}.api.runpod.ai" if kind else f"https://{handle}-{PORT}.proxy.runpod.net"

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Terminate the pod or delete the endpoint; a network volume is kept."""
        del order
        kind, _, endpoint = handle.rpartition("/")
        if kind == "serverless":
            step = Request("delete the endpoint", "DELETE", f"/v2/serverless/{endpoint}")
        else:
            step = Request("terminate the pod", "POST", f"/v2/pods/{handle}/action", {"action": "terminate"})
        return DeploymentPlan(
            self.name, (step,), handle, ("Network volumes are kept, and cost money, until you delete them.",)
        )


def _variables(order: DeploymentOrder, root: str) -> dict[str, str]:
    """Return the container's variables. RunPod replaces `{{ ... }}` in their values, so that a configuration with such
    words of its own travels in base64."""
    return environment(order, root, encoded="{{" in settings_text(order, f"{root}/data"))


def _notes(order: DeploymentOrder, url: str) -> tuple[str, ...]:
    return (
        f"It answers at {url}/v1; while the model loads, the router sends requests to the cloud.",
        "RunPod's proxy cuts connections that are silent for 100 s: stream long answers.",
        *(f"The pod needs the secret {name} in RunPod's console." for name in order.secrets),
        *(
            ()
            if order.volume
            else ("Without a network volume (--volume ID), ledger and models are lost with the pod.",)
        ),
    )
