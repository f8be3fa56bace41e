"""A Dockerfile's steps in a clean root, without Docker: what its build and its start would do, done and looked at.

Usage (as root, Linux): python tests/deploy/clean_root.py deploy/Dockerfile.cpu ENGINE_VENV

1. New mount namespace; the root is an empty tmpfs with this system's /usr and Python read-only, a copy of /etc, and
   ENGINE_VENV as /opt/engine. Variables: none but the Dockerfile's and pip's own.
2. Every RUN, COPY, ENV, WORKDIR, USER of the file in order. Two RUNs are not done and said so: `apt-get` (the system's
   own files stand in for the base image) and the engine's installation (ENGINE_VENV stands in); nor is COPY from one
   stage to another: one root stands in for all.
   The C compiler does not optimize here, which would take minutes; what it compiles does the same.
   tini, which apt-get would bring, is taken from this system where it has one; else it is left out of ENTRYPOINT.
3. ENTRYPOINT and CMD as the file's user in a network namespace with loopback only, the root remounted read-only, the
   volumes and /tmp and /run/spillway writable. Asked: the HEALTHCHECK, a chat completion of the demo model with a key
   that is known by its hash only, the same without a key, an attempt to write to the root. Then SIGTERM.

Prints one JSON object: the steps with seconds, and what was seen. Exit status 0 when everything was done.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {"apt-get": "this system's /usr stands in for the base image", "/opt/engine": "ENGINE_VENV stands in"}
WRITABLE = ("data", "models", "cache", "run/spillway", "tmp")
TOKEN_ID, TOKEN_SECRET = "a1" * 6, "b2" * 32
QUICK_GCC = '#!/bin/sh\nexec /usr/bin/gcc "$@" -O0\n'
STEP_LIMIT_S, START_LIMIT_S, STOP_LIMIT_S = 600, 240, 60
_CLIENT = """
import json, sys, urllib.request, urllib.error
body = {"model": "auto", "messages": [{"role": "user", "content": "Patient 1"}], "max_tokens": 8}
head = {"content-type": "application/json"}
if sys.argv[1]:
    head["authorization"] = "Bearer " + sys.argv[1]
sent = json.dumps(body).encode() if sys.argv[3] else None
call = urllib.request.Request("http://127.0.0.1:8080" + sys.argv[2], sent, head)
try:
    with urllib.request.urlopen(call, timeout=100) as reply:
        print(json.dumps([reply.status, reply.headers.get("x-spillway-decision"), reply.read().decode()[:400]]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, None, error.read().decode()[:400]]))
except OSError as error:
    print(json.dumps([0, None, str(error)]))
"""


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, joined over line ends, without comments."""
    result, pending = [], ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1].rstrip() + " "
            continue
        word, _, rest = pending.partition(" ")
        result.append((word.upper(), rest.strip()))
        pending = ""
    return result


@dataclass(slots=True)
class Image:
    """The root that is being built, and what the file has said so far."""

    root: Path
    env: dict[str, str]
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    user: int = 0
    workdir: str = "/"
    steps: list[dict[str, Any]] = field(default_factory=list)

    def run(self, argv: list[str], limit_s: float, user: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run in the root with the file's variables only."""
        who = self.user if user is None else user
        return subprocess.run(
            ["chroot", f"--userspec={who}:{who}", str(self.root), *argv],
            env=self.env, capture_output=True, text=True, timeout=limit_s, check=False,
        )  # fmt: skip


def take(image: Image, word: str, rest: str) -> None:
    """One instruction."""
    began = time.monotonic()
    why = ""
    if word == "RUN":
        why = next((why for mark, why in SKIPPED.items() if mark in rest and "/opt/spillway" not in rest), "")
        if not why:
            done = image.run(["/bin/bash", "-euo", "pipefail", "-c", rest], STEP_LIMIT_S, 0)
            if done.returncode:
                sys.exit(f"{word} {rest}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    elif word == "COPY" and rest.startswith("--from="):
        why = "one root stands in for all stages"
    elif word == "COPY":
        *sources, target = shlex.split(rest)
        for source in sources:
            where = image.root / target.lstrip("/")
            into = where / Path(source).name if target.endswith("/") else where
            into.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__", "_compiled"))
            else:
                shutil.copy(ROOT / source, into)
    elif word == "ENV":
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            image.env[name] = value.replace("$PATH", image.env["PATH"])
    elif word == "ARG":
        name, _, value = rest.partition("=")
        image.env.setdefault(name, value.strip('"'))
    elif word in ("ENTRYPOINT", "CMD"):
        setattr(image, {"ENTRYPOINT": "entrypoint", "CMD": "command"}[word], json.loads(rest))
    elif word == "HEALTHCHECK":
        image.health = json.loads(rest[rest.index("[") :])
    elif word == "USER":
        image.user = int(rest.split(":")[0])
    elif word == "WORKDIR":
        image.workdir = rest
    image.steps.append({"step": f"{word} {rest}"[:160], "skipped": why, "seconds": round(time.monotonic() - began, 1)})


def mount(*words: str) -> None:
    """One mount in this process's own namespace."""
    subprocess.run(["mount", *words], check=True, timeout=30)


def lay(root: Path, engine: Path) -> None:
    """An empty root with this system's programs read-only."""
    mount("-t", "tmpfs", "-o", "size=3g,mode=755", "tmpfs", str(root))
    python = Path(sys.base_prefix)
    binds = {Path("/usr"): "usr", python: str(python).lstrip("/"), engine: "opt/engine", Path("/dev"): "dev"}
    for source, target in binds.items():
        (root / target).mkdir(parents=True, exist_ok=True)
        mount("--rbind", str(source), str(root / target))
        if source != Path("/dev"):
            mount("-o", "remount,ro,bind", str(root / target))
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(os.readlink(f"/{name}"))
    shutil.copytree("/etc", root / "etc", symlinks=True, ignore_dangling_symlinks=True)
    for name in ("proc", "sys", "run", "tmp", "opt/build", "opt/tools"):
        (root / name).mkdir(parents=True, exist_ok=True)
    if Path("/usr/bin/gcc").exists():
        (root / "opt/tools/gcc").write_text(QUICK_GCC)
        (root / "opt/tools/gcc").chmod(0o755)
    (root / "tmp").chmod(0o1777)
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("--rbind", "/sys", str(root / "sys"))
    os.makedirs(root / "var" / "tmp", mode=0o1777, exist_ok=True)


def seal(image: Image) -> None:
    """Loopback only, root read-only, volumes fresh."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):  # CLONE_NEWNET
        sys.exit("no network namespace")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
    if tini := shutil.which("tini"):
        shutil.copy(tini, image.root / "opt/spillway/bin/tini")
    for name in WRITABLE:
        place = image.root / name
        mount("-t", "tmpfs", "-o", f"uid={image.user},gid={image.user},mode=700", "tmpfs", str(place))
    mount("-o", "remount,ro", str(image.root))


def ask(image: Image, key: str, path: str, post: bool) -> list[Any]:
    """Status, decision and the beginning of the body, asked from inside."""
    python = "/opt/spillway/bin/python"
    done = image.run([python, "-c", _CLIENT, key, path, "post" if post else ""], 120)
    answer: list[Any] = json.loads(done.stdout) if done.stdout else [0, None, done.stderr[-300:]]
    return answer


def start(image: Image) -> dict[str, Any]:
    """ENTRYPOINT and CMD, looked at and ended."""
    digest = hashlib.sha256(TOKEN_SECRET.encode()).hexdigest()
    image.env["SPILLWAY_ACCEPT_KEY"] = f"{TOKEN_ID}:{digest}"
    image.env["SPILLWAY_YAML"] = (image.root / "etc/spillway/spillway.yaml").read_text().replace("auto", "demo")
    argv = [*image.entrypoint, *image.command]
    tini = (image.root / "opt/spillway/bin/tini").exists()
    argv = argv if tini else argv[argv.index("--") + 1 :]
    key = f"sk-spill-{TOKEN_ID}-{TOKEN_SECRET}"
    seen: dict[str, Any] = {"argv": argv, "tini": tini, "uid": image.user}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            ["chroot", f"--userspec={image.user}:{image.user}", str(image.root), "/bin/sh", "-c",
             f'cd {image.workdir} && exec "$@"', "sh", *argv],
            env=image.env, stdout=said, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        began = time.monotonic()
        try:
            while (status := ask(image, "", "/ready", False)[0]) != 200:
                if process.poll() is not None or time.monotonic() - began > START_LIMIT_S:
                    break
                seen.setdefault("status_while_starting", status) if status else None
                time.sleep(0.5)  # between two looks; START_LIMIT_S bounds them
            seen["ready_after_s"] = round(time.monotonic() - began, 1)
            seen["health_status"] = image.run(image.health, 10).returncode
            seen["with_key"] = ask(image, key, "/v1/chat/completions", True)
            seen["without_key"] = ask(image, "", "/v1/chat/completions", True)[0]
            written = image.run(["/bin/sh", "-c", "echo x > /opt/spillway/x || echo x > /etc/x"], 10)
            seen["root_writable"] = written.returncode == 0
            seen["id"] = image.run(["id", "-u"], 10).stdout.strip()
        finally:
            process.send_signal(signal.SIGTERM)
            seen["exit_status"] = process.wait(STOP_LIMIT_S)
            said.seek(0)
            seen["said"] = said.read()[-3000:]
    seen["left_in_data"] = sorted(str(p.relative_to(image.root / "data")) for p in (image.root / "data").rglob("*"))
    return seen


def main(dockerfile: Path, engine: Path) -> int:
    """Build, seal, start, print."""
    with tempfile.TemporaryDirectory(prefix="clean-root-") as folder:
        root = Path(folder)
        lay(root, engine)
        python = Path(sys.base_prefix) / "bin"
        kept = {n: v for n, v in os.environ.items() if n.startswith("PIP_") or n.lower().endswith("_proxy")}
        image = Image(root, {**kept, "PATH": f"/opt/tools:{python}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
        try:
            for word, rest in instructions(dockerfile.read_text(encoding="utf-8")):
                take(image, word, rest)
            image.env = {name: value for name, value in image.env.items() if name not in kept}
            seal(image)
            report = {"dockerfile": dockerfile.name, "steps": image.steps, "started": start(image)}
        finally:
            subprocess.run(["umount", "--recursive", "--lazy", str(root)], check=False, timeout=60)
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 3:
        again = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, *sys.argv[1:], "inside"]
        os.execvp(again[0], again)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]).absolute()))
