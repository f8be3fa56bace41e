"""The side effects of `spillway deploy` and `spillway pod`: on the provider, the list of deployments and the ledger."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

import typer

from spillway_router.commands.common import fail, now_ms, open_ledger, opened, when
from spillway_router.commands.rental_watch import RUNPOD_URL_VARIABLE, WatchOutcome, inspector_of
from spillway_router.core.money.tariff import NANO, usd
from spillway_router.deploy import TARGETS
from spillway_router.deploy.machines import price_nano
from spillway_router.deploy.order import Access, DeployError, DeploymentOrder, DeploymentPlan
from spillway_router.deploy.perform import Api, NotThereError, Shell, perform
from spillway_router.deploy.state import Deployment, Deployments

if TYPE_CHECKING:
    from typing import Literal

    from spillway_router.config.load import Loaded
    from spillway_router.deploy.readiness import Readiness
    from spillway_router.deploy.runpod_api import RunPodClient
    from spillway_router.ledger.rentals.keeper import RentalTerms


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


@dataclass(frozen=True, slots=True)
class Rented:
    """A machine that runs and is not booked yet; `price` is the one that its provider answered, in US dollars per hour
    of all GPUs, empty if it told none."""

    deployment: Deployment
    price: str
    is_billed_by_time: bool


class DeploymentRunner:
    """Carry out plans and record the rentals in the ledger. A missing provider key ends the command.

    `notes_on_stderr` keeps standard output free for JSON.
    """

    def __init__(self, target: str, loaded: Loaded, *, notes_on_stderr: bool = False) -> None:
        provider_key(target, loaded.environment)
        self._target = target
        self._loaded = loaded
        self._notes_on_stderr = notes_on_stderr
        self._api: Api | None = runpod_client(loaded) if target == "runpod" else None
        self._shell = Shell(loaded.environment)
        self._deployments = deployments(loaded)

    def rent(self, plan: DeploymentPlan, order: DeploymentOrder) -> Rented:
        """Carry out the plan and put the machine on the list of deployments.

        A handle that is deployed already keeps its rental, because it is the same machine.
        """
        self._deployments.all()  # a list that can't be read is found before anything costs money
        context = order.options.get("context", "")
        cluster = (context or self._current_context()) if self._target == "kubernetes" else ""
        performed = perform(plan, self._api, self._shell, self._say)
        deployment = Deployment(
            target=self._target,
            handle=performed.handle,
            rental="",
            gpu=order.gpu,
            count=order.count,
            price_per_hour=str(order.price_per_hour),
            kind=order.kind,
            place=order.place,
            context=context,
            cluster=cluster,
        )
        before = self._deployments.earlier(deployment)
        deployment = replace(deployment, rental="" if before is None else before.rental)
        self._deployments.put(deployment)
        return Rented(deployment, performed.price, order.options.get("serverless") != "1")

    def book(self, rented: Rented) -> str:
        """Start the rental of a machine, and return its ID; "" where none is recorded here. A ledger that fails ends
        the command with a warning."""
        if not rented.is_billed_by_time:
            return ""
        return begin_rental(
            self._loaded,
            self._deployments,
            rented.deployment,
            rented.price,
            notes_on_stderr=self._notes_on_stderr,
        )

    def _say(self, text: str) -> None:
        typer.echo(text, err=self._notes_on_stderr)

    def _current_context(self) -> str:
        """Return the context that helm uses by itself, so that a release is taken away where it was made; "" without
        `kubectl`."""
        try:
            return self._shell.run(("kubectl", "config", "current-context"), "").strip()
        except DeployError:
            return ""

    def wait_until_ready(self, handle: str, within_s: float) -> Readiness:
        """Wait until the machine answers requests, or the time is over."""
        from spillway_router.deploy.readiness import await_ready

        target = TARGETS[self._target]
        self._say(f"waiting up to {within_s / 60:.0f} minutes until it is ready (Ctrl-C: stop waiting; it goes on)")
        readiness = await_ready(lambda: target.address(handle, self._shell.run), within_s)
        if readiness.ready:
            self._say(f"ready after {readiness.waited_s:.0f} s: {readiness.url}/v1")
        return readiness

    def end_unready(self, handle: str, order: DeploymentOrder, readiness: Readiness) -> NoReturn:
        """End the command for a machine that did not get ready in time, with what it costs and what to do."""
        target = TARGETS[self._target]
        spent = order.per_hour * Decimal(round(readiness.waited_s)) / 3600
        fail(
            f"{handle} is not ready after {readiness.waited_s / 60:.1f} minutes: {readiness.last}\n"
            f"It runs, has cost about {spent:.2f} USD, and goes on at {order.per_hour:f} USD per hour.\n"
            f"  look at its log: {target.log_command.replace('ID', handle)}\n"
            f"  release it:      spillway deploy {self._target} {handle} --destroy"
        )

    def release(self, plan: DeploymentPlan, deployment: Deployment) -> None:
        """Carry out the plan, end the rental, and remove the deployment from the list.

        A machine that is gone already ends its rental at the last sign of it.
        """
        try:
            perform(plan, self._api, self._shell, self._say)
        except NotThereError:
            self._say(f"{deployment.handle} is gone already")
            follow_machine(self._loaded, deployment, notes_on_stderr=self._notes_on_stderr)
        end_rental(self._loaded, self._deployments, deployment, notes_on_stderr=self._notes_on_stderr)
        self._deployments.remove(deployment)


def begin_rental(
    loaded: Loaded, recorded: Deployments, deployment: Deployment, answered: str = "", *, notes_on_stderr: bool = False
) -> str:
    """Record that a deployment is billed from now on, at the price that its provider tells, and return the rental's ID,
    "" where none is recorded here; `answered` is the price that the provider told when the machine was made, in USD per
    hour of all GPUs, empty without one.

    A ledger that fails ends the command with a warning, since the machine runs already.
    """
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.rentals.declared import deployed

    if deployment.target == "kubernetes" and not loaded.settings.ledger.url.startswith("sqlite:"):
        typer.echo(
            "note  each pod bills its own GPU in the shared ledger, so no rental is recorded here",
            err=notes_on_stderr,
        )
        return ""
    typed = Decimal(deployment.price_per_hour) * deployment.count
    whole = _told_price(loaded, deployment) or price_nano(answered)
    terms = _terms_of(deployment, whole)
    if whole is None and deployment.target != "kubernetes":
        typer.echo(
            f"note  {deployment.target} told no price; booked is what was typed: {typed:f} USD per hour",
            err=notes_on_stderr,
        )
    elif whole is not None and whole != int(typed * NANO):
        typer.echo(
            f"warning  {deployment.target} bills {usd(whole)} USD per hour and not the {typed:f} that was typed; "
            "booked is what it bills",
            err=True,
        )
    try:
        ledger = open_ledger(loaded)
        try:
            record, again = deployed(ledger, terms, deployment.target, now_ms(), deployment.rental)
        finally:
            ledger.close()
    except (LedgerError, typer.Exit) as error:
        fail(
            f"{deployment.handle} IS RUNNING AND COSTS MONEY, but its rental is not in the ledger ({error}); "
            "record it with `spillway rentals start`"
        )
    recorded.put(replace(deployment, rental=record.id))
    typer.echo(
        f"rental {record.id} goes on" if again else f"rental {record.id} is recorded from now on", err=notes_on_stderr
    )
    return record.id


def _told_price(loaded: Loaded, deployment: Deployment) -> int | None:
    """Ask the provider what a machine costs, in nano-dollars per hour of all GPUs; None if it doesn't say."""
    inspector = inspector_of(deployment.target, loaded.environment)
    if inspector is None:
        return None
    try:
        sighting = inspector.look([deployment.machine])[deployment.machine]
    except (DeployError, KeyError):
        return None
    return sighting.prices[-1].nano_per_hour if sighting.prices else None


def _terms_of(deployment: Deployment, whole_nano: int | None) -> RentalTerms:
    from spillway_router.ledger.rentals.keeper import RentalTerms
    from spillway_router.ledger.rentals.watch import split_price

    each_nano, odd_nano = int(Decimal(deployment.price_per_hour) * NANO), None
    if whole_nano is not None:
        each_nano, odd_nano = split_price(whole_nano, deployment.count)
    return RentalTerms(
        gpu=deployment.gpu,
        count=deployment.count,
        price_nano_per_hour=each_nano,
        kind=cast('Literal["reserved", "interruptible"]', deployment.kind),
        whole_nano_per_hour=odd_nano,
        machine=deployment.machine,
    )


def end_rental(loaded: Loaded, recorded: Deployments, deployment: Deployment, *, notes_on_stderr: bool = False) -> None:
    """Record that a deployment is no longer billed."""
    from spillway_router.ledger.rentals.declared import end, running_rental

    if deployment.rental:
        with opened(loaded) as ledger:
            now = now_ms()
            running = running_rental(ledger, deployment.target, deployment.machine, now, deployment.rental)
            if running is not None:
                end(ledger, [running], now, now)
                typer.echo(f"stopped {running.id} at {when(now)}", err=notes_on_stderr)
        recorded.put(replace(deployment, rental=""))


def follow_machine(loaded: Loaded, deployment: Deployment, *, notes_on_stderr: bool = False) -> None:
    """Let the rental of a deployment follow what its provider says of it now."""
    from spillway_router.ledger.rentals.keeper import Books
    from spillway_router.ledger.rentals.watch import follow, rental_of

    inspector = inspector_of(deployment.target, loaded.environment)
    if inspector is None or not deployment.rental:
        return
    sightings = inspector.look([deployment.machine])
    with opened(loaded) as ledger:
        now = now_ms()
        record = rental_of(ledger, deployment.target, deployment.machine, now)
        if record is None or deployment.machine not in sightings:
            return
        changes = follow(ledger, record, sightings[deployment.machine], now)
        Books(ledger).settle(now)
    for line in WatchOutcome(tuple(changes), 0, ()).lines()[:-1]:
        typer.echo(line, err=notes_on_stderr)


def deployed_pod(loaded: Loaded, pod_id: str) -> tuple[Deployments, Deployment]:
    """Return the list of deployments and the pod's entry in it. Raises `DeployError` for a serverless endpoint."""
    recorded = deployments(loaded)
    deployment = recorded.find("runpod", pod_id)
    if deployment.handle.startswith("serverless/"):
        raise DeployError(f"{deployment.handle} is a serverless endpoint, which starts and stops by itself")
    return recorded, deployment
