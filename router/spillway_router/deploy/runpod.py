"""RunPod: a pod through REST v2, or a serverless endpoint that balances load (template and notes in runpod/).

Secrets are references to RunPod's own store: RunPod resolves `{{ RUNPOD_SECRET_GROQ_API_KEY }}` when the pod starts.
"""

from __future__ import annotations

from spillway_hardware.gpus import GPUS
from spillway_router.deploy.container import environment, with_references
from spillway_router.deploy.order import (
    PORT,
    PRICE,
    DeployError,
    DeploymentOrder,
    DeploymentPlan,
    Request,
    Save,
    gpu_of,
)
from spillway_router.deploy.runpod_api import CreateEndpoint, CreatePod, Mounts, NetworkMount, PodGpu, Scaling, Workers

NAMES = {name: gpu.targets.runpod for name, gpu in GPUS.items() if gpu.targets.runpod is not None}
SECRET = "{{ RUNPOD_SECRET_{name} }}"  # noqa: S105 - a reference, resolved by RunPod
VOLUME = "/workspace"
SERVERLESS_VOLUME = "/runpod-volume"


class RunPod:
    """Rent pods and serverless endpoints."""

    name = "runpod"
    key_variable = "RUNPOD_API_KEY"

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Create the pod with one POST; it starts by itself."""
        if order.options.get("serverless"):
            return self._serverless(order)
        if order.interruptible:
            raise DeployError("RunPod's REST v2 rents no interruptible pods; omit --interruptible, or use vast or aws")
        root = VOLUME if order.volume else ""
        variables = environment(order, root)
        body = CreatePod(
            name=order.name,
            image=order.image,
            gpu=PodGpu(id=gpu_of(NAMES, order, self.name).id, count=order.count),
            cloud="COMMUNITY" if order.options.get("community") else "SECURE",
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
        root = SERVERLESS_VOLUME if order.volume else ""
        variables = {
            **environment(order, root),
            "PORT": str(PORT),
            "PORT_HEALTH": str(PORT),
        }
        body = CreateEndpoint(
            name=order.name,
            image=order.image,
            gpu={"pools": [gpu_of(NAMES, order, self.name).pool], "count": order.count},
            disk=order.disk_gb,
            ports=(f"{PORT}/http",),
            env=with_references(variables, order.secrets, SECRET),
            workers=Workers(
                min=int(order.options.get("workers_min", "0")), max=int(order.options.get("workers_max", "2"))
            ),
            scaling=Scaling(type="REQUEST_COUNT", value=float(order.options.get("requests_per_worker", "32"))),
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
            "REST v2 as published takes no endpoint type and creates a queue, which can't serve this API: create the "
            "endpoint in the console with the type `Load Balancer` and these values (docs/deploy/runpod.md).",
            *_notes(order, "https://ENDPOINT_ID.api.runpod.ai"),
        )
        return DeploymentPlan(self.name, (step,), "serverless/{endpoint}", notes)

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
