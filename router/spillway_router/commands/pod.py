"""`spillway pod`: RunPod pods: list, status, start, stop, logs; a network volume. Rentals follow start and stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, fail, load
from spillway_router.commands.deploy_execution import begin_rental, end_rental, known_pod, runpod_client
from spillway_router.deploy.order import DeployError

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded
    from spillway_router.deploy.runpod_api import Pod, RunPodClient

pod_app = typer.Typer(no_args_is_help=True, help="RunPod pods: list, status, start, stop, logs, volume.")
PodArgument = Annotated[str, typer.Argument(help="Id of the pod; the only one deployed from here if left out.")]


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
def list_pods(path: ConfigOption = None) -> None:
    """All pods of the account."""
    with _client(load(path)) as client:
        for pod in client.pods():
            _tell(pod)


@pod_app.command()
def status(pod_id: PodArgument = "", path: ConfigOption = None) -> None:
    """One pod: what it does, what it costs now, what can be done with it."""
    loaded = load(path)
    with _client(loaded) as client:
        pod = client.pod(known_pod(loaded, pod_id)[1].handle)
        _tell(pod)
        typer.echo(f"can     {', '.join(pod.actions) or 'nothing'}\nurl     {pod.url}/v1")


@pod_app.command()
def stop(pod_id: PodArgument = "", path: ConfigOption = None) -> None:
    """Stop: the GPU is given back, disk and id stay. Its rental ends."""
    loaded = load(path)
    with _client(loaded) as client:
        known, made = known_pod(loaded, pod_id)
        pod = client.act(made.handle, "stop")
        end_rental(loaded, known, made)
        if pod is not None:
            _tell(pod)


@pod_app.command()
def start(pod_id: PodArgument = "", path: ConfigOption = None) -> None:
    """Start a stopped pod. A new rental begins, on the terms of the deployment."""
    loaded = load(path)
    with _client(loaded) as client:
        known, made = known_pod(loaded, pod_id)
        pod = client.act(made.handle, "start")
        if made.gpu and not made.rental:
            begin_rental(loaded, known, made)
        if pod is not None:
            _tell(pod)


@pod_app.command()
def logs(
    pod_id: PodArgument = "",
    path: ConfigOption = None,
    tail: Annotated[int, typer.Option(min=0, max=5000, help="Old lines first.")] = 100,
    system: Annotated[bool, typer.Option("--system", help="The host's log instead of the container's.")] = False,
) -> None:
    """Follow the log; ends with Ctrl-C, or when nothing is said for a minute."""
    loaded = load(path)
    with _client(loaded) as client:
        handle = known_pod(loaded, pod_id)[1].handle
        for line in client.logs(handle, tail, "system" if system else "container"):
            typer.echo(f"{line.at}  {line.text}")


@pod_app.command()
def volume(
    name: str,
    place: Annotated[str, typer.Option(help="Data centre, such as EU-RO-1; pods with the volume must be there too.")],
    size: Annotated[int, typer.Option(min=10, max=4096, help="GB.")] = 100,
    path: ConfigOption = None,
) -> None:
    """Make a network volume for models and ledger; it costs until you delete it in the console."""
    with _client(load(path)) as client:
        made = client.create_volume(name, size, place)
        typer.echo(f"{made.id}  {made.name}  {made.size} GB in {made.dataCenter}")


def _tell(pod: Pod) -> None:
    typer.echo(f"{pod.id}  {pod.status:12}  ${pod.cost:.2f} per hour  {pod.name}  {pod.image}")
