"""Vast.ai through its own command line, `vastai`: search, take the cheapest offer, create, destroy.

The arguments never hold a secret: provider keys are account variables there (`vastai create env-var NAME VALUE`), which
every instance of the account gets. The container is started in `args` mode, which keeps the image's own entrypoint;
`--ssh` replaces it, and then deploy/vast/onstart.sh starts the supervisor.
"""

from __future__ import annotations

from spillway_router.deploy.container import environment
from spillway_router.deploy.order import PORT, Command, DeployError, DeploymentOrder, DeploymentPlan, Save, gpu_of

GPUS = {
    "t4": "gpu_name=Tesla_T4",
    "l4": "gpu_name=L4",
    "a100-40": "gpu_name in [A100_PCIE,A100_SXM4] gpu_ram<50",
    "a100-80": "gpu_name in [A100_PCIE,A100_SXM4] gpu_ram>=79",
    "h100": "gpu_name in [H100_PCIE,H100_SXM,H100_NVL] gpu_ram>=79",
}
ONSTART = "/opt/spillway/bin/spillway-onstart"


class Vast:
    """Instances of the cheapest reliable host."""

    name = "vast"
    key_variable = "VAST_API_KEY"

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Search, then create on the first offer."""
        if order.volume:
            raise DeployError("volumes on Vast.ai belong to one machine; leave --volume out")
        cuda = order.options.get("cuda", "13.0")
        query = " ".join(
            [
                gpu_of(GPUS, order, self.name),
                f"num_gpus={order.count}",
                f"dph_total<={order.per_hour:f}",
                f"disk_space>={order.disk_gb}",
                f"cuda_vers>={cuda}",
                "reliability>0.98",
                "inet_down>200",
                "direct_port_count>=1",
                "rentable=true",
                "verified=true",
                *([f"geolocation={order.place}"] if order.place else []),
            ]
        )
        kind = "bid" if order.interruptible else "on-demand"
        search = Command(
            "find the cheapest offer",
            ("vastai", "search", "offers", query, "--type", kind, "-o", "dph_total", "--limit", "1", "--raw"),
            save=Save("offer", (0, "id")),
        )
        create = Command(
            "rent it",
            ("vastai", "create", "instance", "{offer}", *self._options(order)),
            save=Save("instance", ("new_contract",)),
        )
        return DeploymentPlan(self.name, (search, create), "{instance}", _notes(order))

    def _options(self, order: DeploymentOrder) -> tuple[str, ...]:
        variables = environment(order, encoded=True)
        words = [f"-p {PORT}:{PORT}", *(f"-e {name}={text}" for name, text in variables.items())]
        bid = ("--bid_price", f"{order.per_hour:f}") if order.interruptible else ()
        start = (
            ("--ssh", "--direct", "--onstart-cmd", ONSTART)
            if order.options.get("ssh")
            else ("--args", "spillway", "up")
        )
        return (
            *("--image", order.image, "--disk", str(order.disk_gb), "--label", order.name),
            *("--env", " ".join(words), *bid, "--cancel-unavail", "--raw", *start),
        )

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Destroy the instance with its disk."""
        del order
        return DeploymentPlan(
            self.name, (Command("destroy it", ("vastai", "destroy", "instance", handle, "--yes")),), handle
        )


def _notes(order: DeploymentOrder) -> tuple[str, ...]:
    bid = (
        ("Outbid means paused, not deleted: the disk still costs; raise with `vastai change bid`.",)
        if order.interruptible
        else ()
    )
    secrets = tuple(f"Needs the account variable {name}: vastai create env-var {name} VALUE" for name in order.secrets)
    where = "Its address: `vastai show instance ID --raw`, public_ipaddr and the host port of 8080/tcp."
    return (
        where,
        "A host on a market can read what runs on it: keep private data off unverified ones.",
        *bid,
        *secrets,
    )
