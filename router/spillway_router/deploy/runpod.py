"""RunPod: a pod through REST v2, or a serverless endpoint that balances load (template and notes in runpod/).

Secrets are RunPod's own, by reference: `{{ RUNPOD_SECRET_GROQ_API_KEY }}` is resolved on their side at start.
"""

from __future__ import annotations

from spillway_router.deploy.container import environment, with_references
from spillway_router.deploy.order import PORT, DeployError, DeploymentOrder, DeploymentPlan, Request, Save, gpu_of
from spillway_router.deploy.runpod_api import CreateEndpoint, CreatePod, Gpu, Mounts, NetworkMount, Scaling, Workers

GPUS = {
    "l4": "NVIDIA L4",
    "a100-80": "NVIDIA A100 80GB PCIe",
    "h100": "NVIDIA H100 80GB HBM3",
}
POOLS = {"l4": "ADA_24", "a100-80": "AMPERE_80", "h100": "ADA_80_PRO"}
SECRET = "{{ RUNPOD_SECRET_{name} }}"  # noqa: S105 - a reference, resolved by RunPod
VOLUME = "/workspace"
SERVERLESS_VOLUME = "/runpod-volume"


class RunPod:
    """Pods and serverless endpoints."""

    name = "runpod"
    key_variable = "RUNPOD_API_KEY"

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """One POST; the pod starts by itself."""
        if order.options.get("serverless"):
            return self._serverless(order)
        if order.interruptible:
            raise DeployError(
                "RunPod's REST v2 rents no interruptible pods; leave --interruptible out, or use vast or aws"
            )
        root = VOLUME if order.volume else ""
        variables = environment(order, root)
        body = CreatePod(
            name=order.name,
            image=order.image,
            gpu=Gpu(id=gpu_of(GPUS, order, self.name), count=order.count),
            cloud="COMMUNITY" if order.options.get("community") else "SECURE",
            disk=order.disk_gb,
            ports=(f"{PORT}/http",),
            env=with_references(variables, order.secrets, SECRET),
            mounts=Mounts(network=(NetworkMount(volumeId=order.volume, path=VOLUME),)) if order.volume else None,
            dataCenterIds=(order.place,) if order.place else None,
        )
        step = Request("rent the pod and start it", "POST", "/v2/pods", body.json_body(), Save("pod", ("id",)))
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
            gpu={"pools": [gpu_of(POOLS, order, self.name)], "count": order.count},
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
        step = Request("make the endpoint", "POST", "/v2/serverless", body.json_body(), Save("endpoint", ("id",)))
        notes = (
            "REST v2 as published takes no endpoint type, and makes a queue, which doesn't carry this API: make the "
            "endpoint in the console with the type `Load Balancer` and these values (docs/deploy/runpod.md).",
            *_notes(order, "https://ENDPOINT_ID.api.runpod.ai"),
        )
        return DeploymentPlan(self.name, (step,), "serverless/{endpoint}", notes)

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Terminate the pod or delete the endpoint; a network volume stays."""
        del order
        kind, _, endpoint = handle.rpartition("/")
        if kind == "serverless":
            step = Request("delete the endpoint", "DELETE", f"/v2/serverless/{endpoint}")
        else:
            step = Request("terminate the pod", "POST", f"/v2/pods/{handle}/action", {"action": "terminate"})
        return DeploymentPlan(self.name, (step,), handle, ("Network volumes stay, and cost, until you delete them.",))


def _notes(order: DeploymentOrder, url: str) -> tuple[str, ...]:
    return (
        f"It answers at {url}/v1; the router first, by the cloud, while the model loads.",
        "RunPod's proxy cuts a connection that is silent for 100 s: stream long answers.",
        *(f"Needs the secret {name} in RunPod's console." for name in order.secrets),
        *(() if order.volume else ("No network volume: ledger and models are lost with the pod (--volume ID).",)),
    )
