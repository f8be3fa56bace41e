"""What `spillway deploy` and `spillway pod` do to the world: the provider, the list of deployments, the ledger."""

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
"""Another base URL of RunPod's API, for tests and proxies."""


def deployments(loaded: Loaded) -> Deployments:
    """The list of what was deployed, beside the ledger."""
    return Deployments(Path(loaded.settings.price_file).parent / "deployments.json")


def first_key() -> tuple[str, Access]:
    """A new API key with the admin role: the token to show once, and what the rented machine is told of it."""
    from spillway_router.ledger.tables.keys import KeySpec, mint

    new = mint(KeySpec("deploy", "admin"), secrets.token_bytes(6), secrets.token_bytes(32), now_ms())
    return new.token, Access(new.record.id, new.record.secret_sha256.hex())


def runpod_client(loaded: Loaded) -> RunPodClient:
    """RunPod's API with the key of the environment."""
    from spillway_router.deploy.runpod_api import BASE_URL, RunPodClient

    base_url = loaded.environment.get(RUNPOD_URL_VARIABLE, BASE_URL)
    return RunPodClient(provider_key("runpod", loaded.environment), base_url)


def provider_key(target: str, environment: Mapping[str, str]) -> str:
    """The provider's key from the environment, "" where none is needed; a missing one ends the command."""
    variable = TARGETS[target].key_variable
    if not variable:
        return ""
    key = environment.get(variable, "")
    if not key:
        fail(f"{target} needs its API key in the environment: export {variable}=...")
    return key


class DeploymentRunner:
    """Does what a plan says and keeps the books. Ends the command where the provider's key is missing."""

    def __init__(self, target: str, loaded: Loaded) -> None:
        provider_key(target, loaded.environment)
        self._target = target
        self._loaded = loaded
        self._api: Api | None = runpod_client(loaded) if target == "runpod" else None
        self._shell = Shell(loaded.environment)
        self._known = deployments(loaded)

    def rent(self, plan: DeploymentPlan, order: DeploymentOrder) -> str:
        """Carry out the plan, note what was made, start its rental; answers the handle."""
        self._known.all()  # a list that can't be read is told before anything costs
        handle = perform(plan, self._api, self._shell, _tell)
        made = Deployment(
            self._target,
            handle,
            "",
            order.gpu,
            order.count,
            str(order.price_per_hour),
            order.kind,
            order.place,
        )
        self._known.put(made)
        if not order.options.get("serverless"):
            begin_rental(self._loaded, self._known, made)
        return handle

    def give_back(self, plan: DeploymentPlan, known: Deployment) -> None:
        """Carry out the plan, end the rental, forget the deployment."""
        perform(plan, self._api, self._shell, _tell)
        end_rental(self._loaded, self._known, known)
        self._known.remove(known.target, known.handle)


def begin_rental(loaded: Loaded, known: Deployments, made: Deployment) -> None:
    """From now on it is billed. It runs already, so a ledger that fails is told and ends nothing."""
    from spillway_router.core.money.tariff import NANO
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.rentals.keeper import RentalTerms

    kind = cast('Literal["reserved", "interruptible"]', made.kind)
    terms = RentalTerms(made.gpu, made.count, int(Decimal(made.price_per_hour) * NANO), kind)
    try:
        ledger = open_ledger(loaded)
        try:
            record = declare(ledger, terms, made.target, now_ms())
        finally:
            ledger.close()
    except (LedgerError, typer.Exit) as error:
        fail(f"{made.handle} RUNS AND COSTS, but its rental is not on the books ({error}); `spillway rentals start`")
    known.put(replace(made, rental=record.id))
    typer.echo(f"rental {record.id} is on the books from now on")


def end_rental(loaded: Loaded, known: Deployments, made: Deployment) -> None:
    """It is billed no longer."""
    if not made.rental:
        return
    with opened(loaded) as ledger:
        now = now_ms()
        running = [r for r in ledger.rentals(0, now + 1) if r.id == made.rental and r.stopped_ms is None]
        end(ledger, running, now, now)
    known.put(replace(made, rental=""))


def known_pod(loaded: Loaded, pod_id: str) -> tuple[Deployments, Deployment]:
    """A pod that was deployed from here; others are not on these books. Raises DeployError."""
    known = deployments(loaded)
    found = known.find("runpod", pod_id)
    if found.handle.startswith("serverless/"):
        raise DeployError(f"{found.handle} is an endpoint; it starts and stops by itself")
    return known, found


def _tell(line: str) -> None:
    typer.echo(line)
