"""The side effects of `spillway deploy` and `spillway pod`: on the provider, the list of deployments and the ledger."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from spillway_router.commands.common import fail, now_ms, open_ledger, opened
from spillway_router.commands.rentals import declare, end
from spillway_router.deploy import TARGETS
from spillway_router.deploy.order import Access, DeployError, DeploymentOrder, DeploymentPlan
from spillway_router.deploy.perform import Api, Shell, perform
from spillway_router.deploy.state import Deployment, Deployments

if TYPE_CHECKING:
    from typing import Literal

    from spillway_router.config.load import Loaded
    from spillway_router.deploy.runpod_api import RunPodClient

RUNPOD_URL_VARIABLE = "RUNPOD_API_URL"
"""The variable with another base URL of RunPod's API, for tests and proxies."""


def deployments(loaded: Loaded) -> Deployments:
    """Return the list of deployments that were made from here, next to the ledger."""
    return Deployments(Path(loaded.settings.price_file).parent / "deployments.json")


def first_key() -> tuple[str, Access]:
    """Create an API key with the admin role: the token to show once, and what the rented machine learns of it."""
    from spillway_router.ledger.tables.keys import KeySpec, mint

    key = mint(KeySpec("deploy", "admin"), secrets.token_bytes(6), secrets.token_bytes(32), now_ms())
    return key.token, Access(key.record.id, key.record.secret_sha256.hex())


def runpod_client(loaded: Loaded) -> RunPodClient:
    """Return a client of RunPod's API with the key from the environment."""
    from spillway_router.deploy.runpod_api import BASE_URL, RunPodClient

    base_url = loaded.environment.get(RUNPOD_URL_VARIABLE, BASE_URL)
    return RunPodClient(provider_key("runpod", loaded.environment), base_url)


def provider_key(target: str, environment: Mapping[str, str]) -> str:
    """Return the provider's key from the environment, "" where none is needed. A missing key ends the command."""
    variable = TARGETS[target].key_variable
    if not variable:
        return ""
    key = environment.get(variable, "")
    if not key:
        fail(f"{target} needs its API key in the environment: export {variable}=...")
    return key


class DeploymentRunner:
    """Carry out plans and record the rentals in the ledger. A missing provider key ends the command."""

    def __init__(self, target: str, loaded: Loaded) -> None:
        provider_key(target, loaded.environment)
        self._target = target
        self._loaded = loaded
        self._api: Api | None = runpod_client(loaded) if target == "runpod" else None
        self._shell = Shell(loaded.environment)
        self._deployments = deployments(loaded)

    def rent(self, plan: DeploymentPlan, order: DeploymentOrder) -> str:
        """Carry out the plan, record the deployment, start its rental, and return the handle."""
        self._deployments.all()  # reports an unreadable list before anything costs money
        handle = perform(plan, self._api, self._shell, typer.echo)
        deployment = Deployment(
            target=self._target,
            handle=handle,
            rental="",
            gpu=order.gpu,
            count=order.count,
            price_per_hour=str(order.price_per_hour),
            kind=order.kind,
            place=order.place,
        )
        self._deployments.put(deployment)
        if not order.options.get("serverless"):
            begin_rental(self._loaded, self._deployments, deployment)
        return handle

    def release(self, plan: DeploymentPlan, deployment: Deployment) -> None:
        """Carry out the plan, end the rental, and remove the deployment from the list."""
        perform(plan, self._api, self._shell, typer.echo)
        end_rental(self._loaded, self._deployments, deployment)
        self._deployments.remove(deployment.target, deployment.handle)


def begin_rental(loaded: Loaded, recorded: Deployments, deployment: Deployment) -> None:
    """Record that a deployment is billed from now on.

    A ledger that fails ends the command with a warning, since the machine runs already.
    """
    from spillway_router.core.money.tariff import NANO
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.rentals.keeper import RentalTerms

    kind = cast('Literal["reserved", "interruptible"]', deployment.kind)
    terms = RentalTerms(deployment.gpu, deployment.count, int(Decimal(deployment.price_per_hour) * NANO), kind)
    try:
        ledger = open_ledger(loaded)
        try:
            record = declare(ledger, terms, deployment.target, now_ms())
        finally:
            ledger.close()
    except (LedgerError, typer.Exit) as error:
        fail(
            f"{deployment.handle} IS RUNNING AND COSTS MONEY, but its rental is not in the ledger ({error}); "
            "record it with `spillway rentals start`"
        )
    recorded.put(replace(deployment, rental=record.id))
    typer.echo(f"rental {record.id} is recorded from now on")


def end_rental(loaded: Loaded, recorded: Deployments, deployment: Deployment) -> None:
    """Record that a deployment is no longer billed."""
    if not deployment.rental:
        return
    with opened(loaded) as ledger:
        now = now_ms()
        running = [r for r in ledger.rentals.between(0, now + 1) if r.id == deployment.rental and r.stopped_ms is None]
        end(ledger, running, now, now)
    recorded.put(replace(deployment, rental=""))


def deployed_pod(loaded: Loaded, pod_id: str) -> tuple[Deployments, Deployment]:
    """Return the list of deployments and the pod's entry in it. Raises `DeployError` for a serverless endpoint."""
    recorded = deployments(loaded)
    deployment = recorded.find("runpod", pod_id)
    if deployment.handle.startswith("serverless/"):
        raise DeployError(f"{deployment.handle} is a serverless endpoint, which starts and stops by itself")
    return recorded, deployment
