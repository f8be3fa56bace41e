"""Vast.ai through its own command line, `vastai`: search, take the cheapest offer, create, destroy.

The arguments never hold a secret: provider keys are variables of the Vast.ai account (`vastai create env-var NAME
VALUE`), which every instance of the account receives. The container starts in `args` mode, which keeps the image's own
entrypoint; `--ssh` replaces the entrypoint, and then `spillway-onstart` of the image starts the supervisor.
"""

from __future__ import annotations

import json

from spillway_hardware.gpus import GPUS
from spillway_router.deploy.container import environment
from spillway_router.deploy.order import (
    CUDA,
    PORT,
    PRICE,
    SWITCH,
    Accepted,
    Command,
    DeploymentOrder,
    DeploymentPlan,
    Run,
    Save,
    gpu_of,
)

QUERIES = {name: gpu.targets.vast for name, gpu in GPUS.items() if gpu.targets.vast is not None}
ONSTART = "/opt/spillway/bin/spillway-onstart"


class Vast:
    """Rent instances of the cheapest reliable host."""

    name = "vast"
    key_variable = "VAST_API_KEY"
    serves_when_made = False
    log_command = "vastai logs ID"
    accepted = Accepted(
        settings={"cuda": CUDA, "ssh": SWITCH},
        name="[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        place=r"[A-Z]{2}|\[[A-Z]{2}(,[A-Z]{2})*\]",
    )

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Search, then create an instance on the first offer."""
        query = " ".join(
            [
                gpu_of(QUERIES, order, self.name),
                f"num_gpus={order.count}",
                f"dph_total<={order.per_hour:f}",
                f"disk_space>={order.disk_gb}",
                f"cuda_vers>={order.cuda}",
                "reliability>0.98",
                "inet_down>200",
                "direct_port_count>=1",
                "rentable=true",
                "verified=true",
                *([f"geolocation{' in ' if order.place.startswith('[') else '='}{order.place}"] if order.place else []),
            ]
        )
        kind = "bid" if order.interruptible else "on-demand"
        # Without it, the price of an offer is that of 5 GB of disk.
        storage = ("--storage", str(order.disk_gb))
        search = Command(
            "find the cheapest offer",
            ("vastai", "search", "offers", query, "--type", kind, "-o", "dph_total", "--limit", "1", "--raw", *storage),
            save=Save("offer", (0, "id")),
            price=None if order.interruptible else Save(PRICE, (0, "dph_total")),
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
            if order.options.get("ssh") == "1"
            else ("--args", "spillway", "up")
        )
        return (
            *("--image", order.image, "--disk", str(order.disk_gb), "--label", order.name),
            *("--env", " ".join(words), *bid, "--cancel-unavail", "--raw", *start),
        )

    def address(self, handle: str, run: Run) -> str:
        """Return the host's address with the port that the market opened for the router's."""
        try:
            row = json.loads(run(("vastai", "show", "instance", handle, "--raw"), ""))
            port = row["ports"][f"{PORT}/tcp"][0]["HostPort"]
            return f"http://{row['public_ipaddr'].strip()}:{int(port)}"
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return ""

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Destroy the instance and its disk."""
        del order
        return DeploymentPlan(
            self.name, (Command("destroy the instance", ("vastai", "destroy", "instance", handle, "--yes")),), handle
        )


def _notes(order: DeploymentOrder) -> tuple[str, ...]:
    outbid = (
        "An outbid instance is paused, not deleted, and its disk costs money; raise the bid with `vastai change bid`."
    )
    secrets = tuple(
        f"The instance needs the account variable {name}: vastai create env-var {name} VALUE" for name in order.secrets
    )
    address = "`vastai show instance ID --raw` shows its address: public_ipaddr and the host port of 8080/tcp."
    return (
        address,
        "The owner of a rented machine can read what runs on it: keep private data off unverified hosts.",
        *((outbid,) if order.interruptible else ()),
        *secrets,
    )
