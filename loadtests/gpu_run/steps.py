"""What is measured, one function per step; each returns plain data."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
from demo.processes import Child
from demo.product import spillway

from loadtests.gpu_run import client
from loadtests.gpu_run.client import Ask
from spillway_router.signals.nvml import NvmlReader, NvmlSettings, load_nvml

SLO_S = 2.0
OUTPUT = 128
_FACTS = re.compile(
    r"GPU KV cache size|Maximum concurrency|Model loading took|Available KV cache memory|attention backend|"
    r"Graph capturing|torch.compile took|init engine|Using .*FlashAttention|CUDA graph|Initial free memory|Free memory"
)
_GAUGE = re.compile(r'^spillway_backend_up\{backend="local"\} (\S+)', re.MULTILINE)
_WAITING = re.compile(r"^vllm:num_requests_(running|waiting)\{[^}]*\} (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Place:
    """What runs: ports of the engine and of the routers with and without a cloud, the process of `spillway up`, the
    model's name and folder, and the folder for logs."""

    engine: int
    router: int
    alone: int
    product: Child
    model: str
    folder: Path


def machine(checkpoint: Path) -> dict[str, Any]:
    """What NVML, `spillway doctor` and `spillway plan` say of this machine."""
    reader = NvmlReader(load_nvml, NvmlSettings(), time.monotonic)
    reading = asdict(reader.read())
    reader.close()
    doctor = _json(spillway("doctor", "--json"))
    plan = _json(spillway("plan", "--json", "--model", str(checkpoint)))
    return {"nvml": reading, "doctor": doctor, "plan": plan, "nvidia_smi": _smi()}


def facts(place: Place) -> dict[str, Any]:
    """What vLLM prints and exports of its memory, and what the router shows of the GPU."""
    log = (place.folder / "data" / "engine.log").read_text(errors="replace")
    engine = httpx.get(f"http://127.0.0.1:{place.engine}/metrics").text
    router = httpx.get(f"http://127.0.0.1:{place.router}/metrics").text
    return {
        "log": [line[-300:] for line in log.splitlines() if _FACTS.search(line)],
        "cache_config": [line for line in engine.splitlines() if line.startswith("vllm:cache_config_info")],
        "gpu_series": [line for line in router.splitlines() if "gpu_" in line and not line.startswith("#")],
        "gpu_now": _gpu(),
    }


def load(place: Place, counts: tuple[int, ...]) -> dict[str, Any]:
    """Streams at once, straight to the engine and through the router, alternating."""
    rows = []
    for count in counts:
        for attempt in range(2 if count < 100 else 1):
            for target, port in (("engine", place.engine), ("router", place.alone)):
                ask = Ask(port, place.model if target == "engine" else "auto", output=OUTPUT)
                replies = client.at_once(ask, count, seed=count + attempt)
                rows.append({"target": target, "at_once": count, **client.summary(replies, SLO_S, OUTPUT)})
    return {"rows": rows, "gpu": _gpu()}


def overflow(place: Place, per_s: float, seconds: float) -> dict[str, Any]:
    """More than the GPU can take, with a cloud; every tenth request is private."""
    replies, seen = _watched(place, partial(_offered, place.router, per_s, seconds, private_every=10))
    groups = {
        "local": [r for r in replies if r.backend == "local" and not r.private],
        "cloud": [r for r in replies if r.backend == "cloud"],
        "private": [r for r in replies if r.private],
    }
    summaries = {name: client.summary(group, SLO_S, OUTPUT) for name, group in groups.items()}
    return {"offered_per_s": per_s, "all": client.summary(replies, SLO_S, OUTPUT), **summaries, "engine": seen}


def overload(place: Place, capacity_per_s: float, seconds: float) -> dict[str, Any]:
    """One, two and four times what the GPU can take, without a cloud."""
    rows = []
    for multiple in (1, 2, 4):
        replies, seen = _watched(place, partial(_offered, place.alone, multiple * capacity_per_s, seconds))
        figures = client.summary(replies, SLO_S, OUTPUT)
        goodput = round(figures["whole_in_time"] / seconds, 2)
        rows.append({"multiple": multiple, "goodput_per_s": goodput, **figures, "engine": seen[-8:]})
    return {"capacity_per_s": capacity_per_s, "rows": rows}


def stopped(place: Place) -> dict[str, Any]:
    """SIGSTOP of the engine's core, and SIGCONT after it left the rotation."""
    core = _core(place)
    return _fault(place, lambda: core.send_signal(signal.SIGSTOP), lambda: core.send_signal(signal.SIGCONT), 60.0)


def killed(place: Place) -> dict[str, Any]:
    """SIGKILL of the engine's core: Spillway starts it again by itself."""
    core = _core(place)
    before = sorted(process.pid for process in _family(place))
    result = _fault(place, core.kill, lambda: None, 240.0)
    left = [pid for pid in before if psutil.pid_exists(pid) and pid not in [p.pid for p in _family(place)]]
    return {**result, "left_of_the_old_engine": left, "gpu": _gpu()}


def ended(place: Place, memory_before: int | None) -> dict[str, Any]:
    """SIGTERM of the product: what is left of its processes and of its memory on the GPU."""
    pids = [process.pid for process in _family(place)]
    began_s = time.monotonic()
    status, left = place.product.stop(60.0)
    stop_s = round(time.monotonic() - began_s, 2)
    time.sleep(1.0)
    gpu = _gpu()
    alive = [pid for pid in pids if psutil.pid_exists(pid)]
    return {
        "exit_status": status,
        "killed": left,
        "alive": alive,
        "seconds": stop_s,
        "gpu_memory_before": memory_before,
        "gpu": gpu,
    }


def _fault(place: Place, break_it: Callable[[], None], mend: Callable[[], None], patience_s: float) -> dict[str, Any]:
    """Break the engine under a trickle of requests; return when it left the rotation and when a token came again."""
    began_s = time.monotonic()
    break_it()
    out_s = _until_gauge(place.alone, 0.0, 30.0, began_s)
    cloud = client.at_once(Ask(place.router, "auto", output=8), 4, seed=1)
    mended_s = time.monotonic()
    mend()
    token_s = None
    while token_s is None and time.monotonic() - mended_s < patience_s:
        ask = Ask(place.alone, "auto", output=8)
        reply = _once(ask)
        if reply.whole and reply.backend == "local":
            token_s = round(time.monotonic() - mended_s, 2)
        else:
            time.sleep(0.2)
    log = place.product.tail(12)
    return {
        "out_of_rotation_s": out_s,
        "meanwhile": client.summary(cloud, SLO_S, 8),
        "token_again_s": token_s,
        "product_log": log,
    }


def _once(ask: Ask) -> client.Reply:
    return client.at_once(ask, 1, seed=int(1000 * time.monotonic()))[0]


def _until_gauge(port: int, wanted: float, patience_s: float, began_s: float) -> float | None:
    with httpx.Client(timeout=5.0) as session:
        while time.monotonic() - began_s < patience_s:
            gauge = _GAUGE.search(session.get(f"http://127.0.0.1:{port}/metrics").text)
            if gauge and float(gauge[1]) == wanted:
                return round(time.monotonic() - began_s, 3)
            time.sleep(0.02)
    return None


def _offered(port: int, per_s: float, seconds: float, private_every: int = 0) -> list[client.Reply]:
    return client.offered(Ask(port, "auto", output=OUTPUT), per_s, seconds, 5, private_every)


def _watched(place: Place, work: Callable[[], list[client.Reply]]) -> tuple[list[client.Reply], list[dict[str, float]]]:
    """Run a load, and read how many requests run and wait at the engine every half second."""
    seen: list[dict[str, float]] = []
    began_s = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(work)
        while not job.done():
            page = httpx.get(f"http://127.0.0.1:{place.engine}/metrics", timeout=10.0).text
            sample = {name: float(value) for name, value in _WAITING.findall(page)}
            seen.append({"at_s": round(time.monotonic() - began_s, 1), **sample})
            time.sleep(0.5)
        return job.result(), seen


def _core(place: Place) -> psutil.Process:
    named = [process for process in _family(place) if process.name().startswith("VLLM::Engine")]
    return named[0] if named else max(_family(place), key=lambda process: process.memory_info().rss)


def _family(place: Place) -> list[psutil.Process]:
    return psutil.Process(place.product.process.pid).children(recursive=True)


def _gpu() -> dict[str, Any]:
    """Read the first GPU once, with the processes on it."""
    reader = NvmlReader(load_nvml, NvmlSettings(), time.monotonic)
    try:
        reading = reader.read()
    finally:
        reader.close()
    processes = _smi("--query-compute-apps=pid,used_memory", "--format=csv,noheader").splitlines()
    return {"reading": asdict(reading.readings[0]) if reading.readings else reading.reason, "processes": processes}


def _smi(*arguments: str) -> str:
    try:
        return subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def _json(command: list[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"exit_status": done.returncode, "stdout": done.stdout[-800:], "stderr": done.stderr[-800:]}


def profile(place: Place, folder: Path) -> dict[str, Any]:
    """The rates of the engine by `loadtests.gpu_profile`."""
    command = [sys.executable, "-m", "loadtests.gpu_profile", "measure"]
    command += ["--base-url", f"http://127.0.0.1:{place.engine}/v1", "--concurrency", "1,8,64,256"]
    command += ["--folder", str(folder), "--save", "--hardware", "this GPU", "--kind", "other"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    return {"exit_status": done.returncode, "said": done.stdout[-4000:], "error": done.stderr[-1500:]}
