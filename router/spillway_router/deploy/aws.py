"""AWS: one CloudFormation stack (deploy/aws/template.yaml) through the `aws` command: launch template, one spot or
on-demand instance held by an Auto Scaling group, security group, secrets from SSM Parameter Store, spot drain watcher.
"""

from __future__ import annotations

from spillway_router.deploy.container import ACCESS_VARIABLE, ENCODED_VARIABLE, environment
from spillway_router.deploy.files import deploy_file
from spillway_router.deploy.order import Command, DeployError, DeploymentOrder, DeploymentPlan, Save, gpu_of

TYPES = {
    "t4": {1: "g4dn.xlarge", 4: "g4dn.12xlarge", 8: "g4dn.metal"},
    "a10g": {1: "g5.xlarge", 4: "g5.12xlarge", 8: "g5.48xlarge"},
    "l4": {1: "g6.xlarge", 4: "g6.12xlarge", 8: "g6.48xlarge"},
    "a100-40": {8: "p4d.24xlarge"},
    "a100-80": {8: "p4de.24xlarge"},
    "h100": {8: "p5.48xlarge"},
}
SECRETS_PATH = "/spillway/"
"""Parameters below it become variables of the container: /spillway/GROQ_API_KEY (SecureString)."""


class Aws:
    """One machine in one stack."""

    name = "aws"
    key_variable = ""

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Deploy the stack, then ask where it answers."""
        sizes = gpu_of(TYPES, order, self.name)
        if bool(order.options.get("vpc")) != bool(order.options.get("subnets")):
            raise DeployError("give --set vpc=ID and --set subnets=ID,ID together, or neither for the default network")
        if order.count not in sizes:
            raise DeployError(f"aws rents {order.gpu} by {', '.join(map(str, sizes))}; choose one of these with --gpus")
        template = deploy_file("aws/template.yaml")
        parameters = {
            "InstanceType": sizes[order.count],
            "Image": order.image,
            "VpcId": order.options.get("vpc", ""),
            "SubnetIds": order.options.get("subnets", ""),
            "ClientCidr": order.options.get("client_cidr", "10.0.0.0/8"),
            "Purchase": "spot" if order.interruptible else "on-demand",
            "MaxSpotPrice": f"{order.per_hour:f}" if order.interruptible else "",
            "DiskGb": str(order.disk_gb),
            "SecretsPath": SECRETS_PATH,
            **_container(order),
        }
        words = tuple(f"{name}={text}" for name, text in parameters.items() if text)
        region = ("--region", order.place) if order.place else ()
        make = ("aws", "cloudformation", "deploy", "--stack-name", order.name, "--template-file", str(template))
        ask = ("aws", "cloudformation", "describe-stacks", "--stack-name", order.name, "--output", "json", *region)
        flags = ("--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset", *region)
        steps = (
            Command("make the stack (about 5 minutes)", (*make, *flags, "--parameter-overrides", *words)),
            Command("ask whether it stands", ask, save=Save("stack", ("Stacks", 0, "StackName"))),
        )
        return DeploymentPlan(self.name, steps, "{stack}", _notes(order))

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Delete the stack and wait until it is gone: only then nothing costs any more."""
        region = ("--region", order.place) if order.place else ()
        steps = (
            Command("delete the stack", ("aws", "cloudformation", "delete-stack", "--stack-name", handle, *region)),
            Command(
                "wait until it is gone",
                ("aws", "cloudformation", "wait", "stack-delete-complete", "--stack-name", handle, *region),
            ),
        )
        return DeploymentPlan(self.name, steps, handle, ("The parameters below /spillway/ stay.",))


def _container(order: DeploymentOrder) -> dict[str, str]:
    """The container's own variables as parameters of the stack."""
    found = environment(order, encoded=True)
    return {"SpillwayYaml": found[ENCODED_VARIABLE], "AcceptKey": found.get(ACCESS_VARIABLE, "")}


def _notes(order: DeploymentOrder) -> tuple[str, ...]:
    spot = (
        ("Two minutes before a spot machine goes, the watcher drains: new requests overflow, running ones end.",)
        if order.interruptible
        else ()
    )
    return (
        "Open to --set client_cidr=CIDR only (10.0.0.0/8 if left out); put TLS in front before you open it wider.",
        *spot,
        *(f"Needs the parameter {SECRETS_PATH}{name} (SecureString)." for name in order.secrets),
    )
