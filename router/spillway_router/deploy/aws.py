"""AWS: one CloudFormation stack (deploy/aws/template.yaml), managed through the `aws` command.

The stack holds a launch template, an Auto Scaling group that keeps one spot or on-demand instance, a security group,
secrets from SSM Parameter Store, and a watcher that sends work away before a spot interruption.
"""

from __future__ import annotations

import ipaddress

from spillway_hardware.gpus import GPUS
from spillway_router.deploy.container import ACCESS_VARIABLE, ENCODED_VARIABLE, environment
from spillway_router.deploy.files import deploy_file
from spillway_router.deploy.order import (
    Accepted,
    Command,
    DeployError,
    DeploymentOrder,
    DeploymentPlan,
    Run,
    Save,
    gpu_of,
)

INSTANCE_TYPES = {name: gpu.targets.aws for name, gpu in GPUS.items() if gpu.targets.aws}
SECRETS_PATH = "/spillway/"
"""Parameters below this path become variables of the container: /spillway/GROQ_API_KEY (SecureString)."""


class Aws:
    """Run one machine in one stack."""

    name = "aws"
    key_variable = ""
    serves_when_made = True
    """The machine signals the stack once it serves (its CreationPolicy)."""
    log_command = "aws ssm start-session --target INSTANCE, then journalctl -u spillway"
    accepted = Accepted(
        settings={
            "vpc": "vpc-[0-9a-f]+",
            "subnets": "subnet-[0-9a-f]+(,subnet-[0-9a-f]+)*",
            "client_cidr": r"[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}",
            "instance": r"(g4dn|g5|g6|g6e|p4d|p4de|p5)\.(metal|[0-9]*xlarge)",
        },
        name="[A-Za-z][A-Za-z0-9-]{0,127}",
        place="[a-z]{2}(-[a-z]+)+-[0-9]+",
        least_disk_gb=60,  # MinValue of the template: the machine's own image takes most of it
        most_characters=4096,  # of a parameter of CloudFormation
        most_stop_s=180,  # `docker stop --time` in the template
    )

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Deploy the stack, then read back its name."""
        sizes = gpu_of(INSTANCE_TYPES, order, self.name)
        if bool(order.options.get("vpc")) != bool(order.options.get("subnets")):
            raise DeployError(
                "set vpc and subnets together (--set vpc=ID --set subnets=ID,ID), or neither for the default network"
            )
        if order.count not in sizes:
            raise DeployError(
                f"aws rents {order.gpu} in groups of {', '.join(map(str, sizes))}; choose one of these with --gpus"
            )
        instance = order.options.get("instance") or sizes[order.count]
        if _gpus_of(instance) != order.count or _family(instance) not in {_family(size) for size in sizes.values()}:
            raise DeployError(
                f"{instance} has not {order.count} {order.gpu}; choose another size of {sizes[order.count]}, or omit "
                "--set instance"
            )
        try:
            ipaddress.ip_network(order.options.get("client_cidr", "10.0.0.0/8"), strict=False)
        except ValueError as error:
            raise DeployError(f"--set client_cidr: {error}; write a network such as 172.31.0.0/16") from None
        template = deploy_file("aws/template.yaml")
        parameters = {
            "InstanceType": instance,
            "Image": order.image,
            "VpcId": order.options.get("vpc", ""),
            "SubnetIds": order.options.get("subnets", ""),
            "ClientCidr": order.options.get("client_cidr") or _clients(order),
            "Purchase": "spot" if order.interruptible else "on-demand",
            "MaxSpotPrice": f"{order.per_hour:f}" if order.interruptible else "",
            "DiskGb": str(order.disk_gb),
            "SecretsPath": SECRETS_PATH,
            **_container(order),
        }
        words = tuple(f"{name}={text}" for name, text in parameters.items() if text)
        region = ("--region", order.place) if order.place else ()
        deploy = ("aws", "cloudformation", "deploy", "--stack-name", order.name, "--template-file", str(template))
        describe = ("aws", "cloudformation", "describe-stacks", "--stack-name", order.name, "--output", "json", *region)
        flags = ("--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset", *region)
        steps = (
            Command(
                "create the stack (until the machine serves, at most 30 minutes)",
                (*deploy, *flags, "--parameter-overrides", *words),
            ),
            Command("check that the stack exists", describe, save=Save("stack", ("Stacks", 0, "StackName"))),
        )
        return DeploymentPlan(self.name, steps, "{stack}", _notes(order))

    def address(self, handle: str, run: Run) -> str:
        """Return "": the machine's address is private."""
        del handle, run
        return ""

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Delete the stack and wait until it is gone, since it costs money until then."""
        region = ("--region", order.place) if order.place else ()
        steps = (
            Command("delete the stack", ("aws", "cloudformation", "delete-stack", "--stack-name", handle, *region)),
            Command(
                "wait until the stack is gone",
                ("aws", "cloudformation", "wait", "stack-delete-complete", "--stack-name", handle, *region),
            ),
        )
        return DeploymentPlan(self.name, steps, handle, (f"The parameters below {SECRETS_PATH} are kept.",))


def _family(instance: str) -> str:
    return instance.partition(".")[0]


def _gpus_of(instance: str) -> int:
    """Return how many GPUs an instance type has, by AWS' list of accelerated instances; 0 for one that is not there."""
    family, _, size = instance.partition(".")
    if family in ("p4d", "p4de"):
        return 8 if size == "24xlarge" else 0
    if family == "p5":
        return {"4xlarge": 1, "48xlarge": 8}.get(size, 0)
    return _GPUS.get(size, 0) if size != "metal" else 8 if family == "g4dn" else 0


_GPUS = {
    **dict.fromkeys(("xlarge", "2xlarge", "4xlarge", "8xlarge", "16xlarge"), 1),
    **dict.fromkeys(("12xlarge", "24xlarge"), 4),
    "48xlarge": 8,
}
"""GPUs of a size of g4dn, g5, g6 and g6e."""


def _container(order: DeploymentOrder) -> dict[str, str]:
    """Return the container's own variables as parameters of the stack."""
    variables = environment(order, encoded=True)
    return {"SpillwayYaml": variables[ENCODED_VARIABLE], "AcceptKey": variables.get(ACCESS_VARIABLE, "")}


def _clients(order: DeploymentOrder) -> str:
    """Return the addresses of a default network's machines, or of any private network."""
    return "10.0.0.0/8" if order.options.get("vpc") else "172.31.0.0/16"


def _notes(order: DeploymentOrder) -> tuple[str, ...]:
    leaving = (
        "Two minutes before AWS reclaims a spot machine, new requests go to the cloud, and the router stays up. "
        "After 75 s it stops to listen, and answers in progress get 25 s more."
    )
    return (
        f"Only {order.options.get('client_cidr') or _clients(order)} can connect (--set client_cidr=CIDR); put TLS in "
        "front before you widen it.",
        "Deploying again replaces the machine: the old one ends first, and its ledger and models are lost with it.",
        *((leaving,) if order.interruptible else ()),
        *(f"The stack needs the parameter {SECRETS_PATH}{name} (SecureString)." for name in order.secrets),
    )
