"""`spillway pod`: list, inspect, start and stop RunPod pods, follow their logs, create a network volume.

Starting and stopping a pod also starts and stops its rental in the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load
from spillway_router.commands.deploy_execution import (
    begin_rental,
    deployed_pod,
    end_rental,
    follow_machine,
    runpod_client,
)
from spillway_router.deploy.order import DeployError

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded
    from spillway_router.deploy.runpod_api import Pod, RunPodClient

pod_app = typer.Typer(no_args_is_help=True, help="Manage RunPod pods: list, status, start, stop, logs, volume.")
PodArgument = Annotated[str, typer.Argument(help="ID of the pod; the only one deployed from here if left out.")]


@contextmanager
def _client(loaded: Loaded) -> Iterator[RunPodClient]:
    client = runpod_client(loaded)
    try:
        yield client
    except DeployError as error:
        fail(f"runpod: {error}")
    finally:
        client.close()


@pod_app.command("list")
def list_pods(path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List all pods of the account."""
    with _client(load(path)) as client:
        pods = client.pods()
    if as_json:
        typer.echo(json.dumps([_values(pod) for pod in pods], indent=2))
        return
    for pod in pods:
        _show(pod)


@pod_app.command()
def status(pod_id: PodArgument = "", path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one pod: its state, its current cost and the actions that it allows. Its rental follows."""
    loaded = load(path)
    with _client(loaded) as client:
        deployment = deployed_pod(loaded, pod_id)[1]
        follow_machine(loaded, deployment, notes_on_stderr=as_json)
        pod = client.pod(deployment.handle)
    if as_json:
        typer.echo(json.dumps({**_values(pod), "actions": list(pod.actions), "url": f"{pod.url}/v1"}, indent=2))
    else:
        _show(pod)
        typer.echo(f"actions {', '.join(pod.actions) or 'no actions'}\nurl     {pod.url}/v1")


@pod_app.command()
def stop(pod_id: PodArgument = "", path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Stop a pod: release the GPU, keep the disk and the ID, and end the rental."""
    loaded = load(path)
    with _client(loaded) as client:
        recorded, deployment = deployed_pod(loaded, pod_id)
        pod = client.act(deployment.handle, "stop")
        end_rental(loaded, recorded, deployment, notes_on_stderr=as_json)
    _answer(pod, as_json=as_json)


@pod_app.command()
def start(pod_id: PodArgument = "", path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Start a stopped pod, and begin a new rental on the terms of the deployment."""
    loaded = load(path)
    with _client(loaded) as client:
        recorded, deployment = deployed_pod(loaded, pod_id)
        pod = client.act(deployment.handle, "start")
        if deployment.gpu and not deployment.rental:
            begin_rental(loaded, recorded, deployment, notes_on_stderr=as_json)
    _answer(pod, as_json=as_json)


@pod_app.command()
def logs(
    pod_id: PodArgument = "",
    path: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    tail: Annotated[int, typer.Option(min=0, max=5000, help="How many of the last lines to show first.")] = 100,
    system: Annotated[bool, typer.Option("--system", help="Show the host's log instead of the container's.")] = False,
) -> None:
    """Follow a pod's log until Ctrl-C, or until no line arrives for a minute."""
    loaded = load(path)
    with _client(loaded) as client:
        handle = deployed_pod(loaded, pod_id)[1].handle
        for line in client.logs(handle, tail, "system" if system else "container"):
            typer.echo(json.dumps({"at": line.at, "text": line.text}) if as_json else f"{line.at}  {line.text}")


@pod_app.command()
def volume(
    name: str,
    place: Annotated[str, typer.Option(help="Data centre, such as EU-RO-1; only pods there can use the volume.")],
    size: Annotated[int, typer.Option(min=10, max=4096, help="Size in GB.")] = 100,
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a network volume for models and ledger; it costs money until you delete it in the console."""
    with _client(load(path)) as client:
        created = client.create_volume(name, size, place)
    if as_json:
        values = {"id": created.id, "name": created.name, "size_gb": created.size, "place": created.dataCenter}
        typer.echo(json.dumps(values, indent=2))
    else:
        typer.echo(f"{created.id}  {created.name}  {created.size} GB in {created.dataCenter}")


def _show(pod: Pod) -> None:
    typer.echo(f"{pod.id}  {pod.status:12}  ${pod.cost:.2f} per hour  {pod.name}  {pod.image}")


def _answer(pod: Pod | None, *, as_json: bool) -> None:
    """Print a pod after an action; nothing, or null, if its provider says nothing of it."""
    if as_json:
        typer.echo(json.dumps(None if pod is None else _values(pod), indent=2))
    elif pod is not None:
        _show(pod)


def _values(pod: Pod) -> dict[str, object]:
    return {
        "id": pod.id,
        "status": pod.status,
        "usd_per_hour": pod.cost,
        "name": pod.name,
        "image": pod.image,
    }
