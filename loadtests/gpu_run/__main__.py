"""`python -m loadtests.gpu_run`: run the whole product on this machine's GPU, measure it, and break its engine.

The model has the shape of a published one and random weights, so nothing is downloaded. Each step writes its JSON into
--out as soon as it is over; one that fails writes its error, and the next goes on.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml
from demo.processes import Child, ChildError, start
from demo.product import free_ports, spillway

from loadtests.gpu_run import dummy, steps
from loadtests.gpu_run.steps import OUTPUT, SLO_S, Place

ALL = "facts,load,overflow,overload,stopped,killed,profile"
_ROOT = Path(__file__).resolve().parents[2]
_CLOUD_PRICE = {"input_per_million": "0.1", "output_per_million": "0.1"}


class Results:
    """Writes what a step returns, or how it failed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began_s = time.monotonic()

    def take(self, name: str, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run one step; never raises."""
        began_s = time.monotonic()
        try:
            result = step()
        except Exception:
            result = {"failed": traceback.format_exc()[-3000:]}
        result["took_s"] = round(time.monotonic() - began_s, 1)
        (self._folder / f"{name}.json").write_text(json.dumps(result, indent=1, default=str) + "\n")
        print(
            f"{time.monotonic() - self._began_s:6.1f} s  {name}: {json.dumps(result, default=str)[:1200]}", flush=True
        )
        return result


def main(
    out: Annotated[Path, typer.Option(help="Folder for results and logs.")],
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(dummy.SHAPES)}, or `demo` without a GPU.")] = (
        "qwen2.5-7b"
    ),
    only: Annotated[str, typer.Option(help="Steps, comma-separated.")] = ALL,
    vllm_arg: Annotated[list[str] | None, typer.Option("--vllm-arg", help="A further argument for vLLM.")] = None,
    at_once: Annotated[str, typer.Option(help="Streams at once, comma-separated.")] = "1,32,128,512",
    per_s: Annotated[float, typer.Option(help="Capacity in requests/s; 0: from the load step.", min=0)] = 0.0,
    seconds: Annotated[float, typer.Option(help="Length of each overload, seconds.", min=1)] = 12.0,
    start_s: Annotated[float, typer.Option(help="How long the engine may take to start, seconds.")] = 300.0,
) -> None:
    """Measure the product on this GPU."""
    # A signal ends the product in order, too.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    out.mkdir(parents=True, exist_ok=True)
    results, wanted = Results(out), only.split(",")
    checkpoint = Path("demo") if shape == "demo" else dummy.write(out.resolve() / "model", shape)
    before = results.take("machine", lambda: steps.machine(checkpoint))
    memory = _memory(before)
    children: list[Child] = []
    try:
        place = _start(out.resolve(), checkpoint, shape, tuple(vllm_arg or ()), children)
        ready = results.take("start", lambda: _until_ready(place, start_s))
        if "failed" not in ready:
            _measure(results, wanted, place, tuple(int(n) for n in at_once.split(",")), per_s, seconds)
            results.take("ended", lambda: steps.ended(place, memory))
    finally:
        for child in reversed(children):
            child.stop(30.0)


def _measure(
    results: Results, wanted: list[str], place: Place, counts: tuple[int, ...], per_s: float, seconds: float
) -> None:
    loaded = results.take("load", lambda: steps.load(place, counts)) if "load" in wanted else {}
    rows = [row for row in loaded.get("rows", ()) if row["target"] == "engine"]
    capacity = per_s or max((row["tokens_per_s"] for row in rows), default=10.0 * OUTPUT) / OUTPUT
    later: dict[str, Callable[[], dict[str, Any]]] = {
        "facts": lambda: steps.facts(place),
        "overflow": lambda: steps.overflow(place, 2 * capacity, seconds),
        "overload": lambda: steps.overload(place, capacity, seconds),
        "stopped": lambda: steps.stopped(place),
        "killed": lambda: steps.killed(place),
        "profile": lambda: steps.profile(place, place.folder / "measured"),
    }
    for name in wanted:
        if name in later:
            results.take(name, later[name])


def _start(out: Path, checkpoint: Path, shape: str, flags: tuple[str, ...], children: list[Child]) -> Place:
    """Start a stand-in cloud, the product, and a second router without a cloud on the same engine."""
    engine, router, alone, cloud = free_ports(4)
    model = "demo" if shape == "demo" else checkpoint.name
    fake = [sys.executable, "-m", "loadtests.fake_engine", "--port", str(cloud), "--queue-cap", "100000"]
    children.append(start("stand-in cloud", [*fake, "--scale", "0.5", "--sequences", "4096", "--kv-tokens", "4000000"],
                          out / "cloud.log", {}, _ROOT))  # fmt: skip
    local = {"name": "local", "provider": "vllm", "local": True, "base_url": f"http://127.0.0.1:{engine}/v1"}
    paid = {"name": "cloud", "provider": "generic", "model": "demo", "api_key": "k", "price": _CLOUD_PRICE}
    common: dict[str, Any] = {
        "gpu": {"price_per_hour": "3.50"},
        "slo": {"ttft_ms": 1000 * SLO_S, "tpot_ms": 100},
        "server": {
            "model": str(checkpoint),
            "vllm_args": [*flags, *([] if shape == "demo" else ["--load-format=dummy"])],
        },
    }
    with_cloud = {
        **common,
        "listen": f"127.0.0.1:{router}",
        "backends": [{**local, "model": model}, {**paid, "base_url": f"http://127.0.0.1:{cloud}/v1"}],
        "aliases": {"auto": {"chain": ["local", "cloud"]}},
        "ledger": {"url": f"sqlite:///{out / 'spillway.db'}"},
    }
    without = {
        **common,
        "listen": f"127.0.0.1:{alone}",
        "backends": [{**local, "model": model}],
        "aliases": {"auto": {"chain": ["local"]}},
        "ledger": {"url": f"sqlite:///{out / 'alone.db'}"},
    }
    product = _router("up", out, with_cloud, children)
    _router("route", out, without, children)
    return Place(engine=engine, router=router, alone=alone, product=product, model=model, folder=out)


def _router(command: str, out: Path, settings: dict[str, Any], children: list[Child]) -> Child:
    config = out / f"{command}.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    child = start(f"spillway {command}", spillway(command, "--config", str(config)), out / f"{command}.log", {}, out)
    children.append(child)
    return child


def _until_ready(place: Place, patience_s: float) -> dict[str, Any]:
    """Wait until both routers answer from the engine.

    Raises:
        ChildError: the product ended, or the engine was not ready in time.
    """
    began_s = time.monotonic()
    body = {"model": "auto", "max_tokens": 2, "messages": [{"role": "user", "content": "Ready?"}]}
    for port in (place.router, place.alone):
        while True:
            place.product.check()
            if "giving up on the engine" in place.product.tail(40):
                raise ChildError(f"the engine gave up:\n{place.product.tail(40)}")
            try:
                reply = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=20)
                if reply.status_code == 200 and reply.headers.get("x-spillway-backend") == "local":
                    break
            except httpx.HTTPError:
                pass
            if time.monotonic() - began_s > patience_s:
                raise ChildError(f"the engine was not ready:\n{place.product.tail(40)}")
            time.sleep(0.5)
    return {"ready_s": round(time.monotonic() - began_s, 1), "log": place.product.tail(40)}


def _memory(machine: dict[str, Any]) -> int | None:
    readings = machine.get("nvml", {}).get("readings") or ()
    return readings[0]["memory_used_bytes"] if readings else None


if __name__ == "__main__":
    typer.run(main)
