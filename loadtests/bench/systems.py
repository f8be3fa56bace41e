"""The systems under test: how each is installed in an environment of its own, and how it is started.

The other proxies run as they come, without key store or database. Spillway runs with everything on: a required key, a
decision over two backends, backlog, scraping and a durable ledger.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import yaml

from loadtests.bench.every_rule import every_rule
from loadtests.bench.install import Unavailable, debian_program, environment, installed_version
from loadtests.bench.processes import ROOT, Command, free_port

RELAY = Path(__file__).with_name("relay_asgi.py")


@dataclass(frozen=True, slots=True)
class StartSite:
    """Where a system is started: the port it listens on, its upstream's port, and a folder for its files."""

    port: int
    upstream_port: int
    scratch: Path

    @property
    def upstream(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"


class System(Protocol):
    """One system under test."""

    @property
    def name(self) -> str: ...

    @property
    def what(self) -> str: ...

    def prepare(self) -> str:
        """Install the system where needed and return its version.

        Raises:
            Unavailable: it is not available here; the message is the reason.
        """

    def command(self, site: StartSite) -> Command:
        """Write the system's files into `site.scratch` and return the command that starts it."""


@dataclass(frozen=True, slots=True)
class Bare:
    """The stub upstream itself, in the proxy's site."""

    name: str = "bare"
    what: str = "the stub upstream itself, no proxy"

    def prepare(self) -> str:
        return "-"

    def command(self, site: StartSite) -> Command:
        return Command((sys.executable, "-m", "loadtests.bench.upstream", "--port", str(site.port)))


@dataclass(frozen=True, slots=True)
class Nginx:
    """nginx with one worker, upstream connections kept alive, and without buffering, as streams need it."""

    name: str = "nginx"
    what: str = "C, forwards without looking at the body"

    def prepare(self) -> str:
        program = debian_program("nginx", "usr/sbin/nginx")
        shown = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=20, check=False)
        return shown.stderr.strip().rpartition("/")[2]

    def command(self, site: StartSite) -> Command:
        program = debian_program("nginx", "usr/sbin/nginx")
        file = site.scratch / "nginx.conf"
        file.write_text(_NGINX.format(folder=site.scratch, port=site.port, upstream=site.upstream_port))
        return Command((program, "-p", str(site.scratch), "-e", "stderr", "-c", str(file)))


# `user root` matters (and is allowed) only when root starts nginx, since others can't write to root's folders.
_NGINX = """daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_body_buffer_size 64k;
  keepalive_requests 1000000;
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
      proxy_read_timeout 120s;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class VllmRouter:
    """vLLM's own router, in Rust."""

    name: str = "vllm-router"
    what: str = "Rust, balances over vLLM workers; no keys, no ledger"

    def prepare(self) -> str:
        return installed_version(environment("vllm-router"), "vllm-router")

    def command(self, site: StartSite) -> Command:
        python = environment("vllm-router")
        argv = [str(python.with_name("vllm-router")), "--host", "127.0.0.1", "--port", str(site.port)]
        argv += ["--worker-urls", site.upstream, "--policy", "round_robin", "--log-level", "warning"]
        # Its default limits would reject some of 200 streams; no other setting is changed.
        argv += [
            "--max-concurrent-requests",
            "1024",
            "--prometheus-host",
            "127.0.0.1",
            "--prometheus-port",
            str(free_port()),
        ]
        return Command(tuple(argv))


@dataclass(frozen=True, slots=True)
class LiteLlm:
    """LiteLLM's proxy with one worker (it gets one core), no database and no callbacks."""

    name: str = "litellm"
    what: str = "Python, LiteLLM proxy; no keys, no database"

    def prepare(self) -> str:
        return installed_version(environment(self.name), "litellm")

    def command(self, site: StartSite) -> Command:
        python = environment(self.name)
        file = site.scratch / "litellm.yaml"
        model = {"model": "openai/demo", "api_base": f"{site.upstream}/v1", "api_key": "stub"}
        config = {"model_list": [{"model_name": "demo", "litellm_params": model}], "litellm_settings": {}}
        file.write_text(yaml.safe_dump(config))
        argv = (str(python.with_name("litellm")), "--config", str(file), "--host", "127.0.0.1")
        env = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "HOME": str(site.scratch),
        }
        return Command((*argv, "--port", str(site.port), "--num_workers", "1", "--telemetry", "False"), env)


@dataclass(frozen=True, slots=True)
class AsgiRelay:
    """A minimal Python relay on a ready-made client: the yardstick for our own transport."""

    name: str = "asgi-aiohttp"
    what: str = "Python, bare ASGI on uvicorn + aiohttp client; only relays"

    def prepare(self) -> str:
        return installed_version(environment("relay"), "aiohttp")

    def command(self, site: StartSite) -> Command:
        return Command((str(environment("relay")), str(RELAY), str(site.port), site.upstream))


@dataclass(frozen=True, slots=True)
class Spillway:
    """Our router with keys, decision, backlog, scraping and a durable SQLite ledger."""

    name: str = "spillway"
    what: str = "Python, everything on: key, decision, backlog, durable ledger"
    python: Path = Path(sys.executable)
    """The Python of the environment that Spillway is installed in; its `spillway` command is started."""
    confident: bool = False
    """Whether every stream of the local engine is scored; all of its scores are above the threshold."""
    backends_under_rules: int = 0
    """How many backends it has, under a policy with a rule of every kind; 0: the usual two, without rules."""
    engines: int = 0
    """How many engines it discovers for its local backend; 0: the backend names its only one."""

    def prepare(self) -> str:
        if not self._command.exists():
            raise Unavailable(f"{self._command} is not installed; run `make install`")
        shown = self._run("route", "--help")
        if shown.returncode != 0:
            raise Unavailable(f"`spillway route` does not run: {shown.stderr.strip()[-200:]}")
        return _spillway_version(self.python)

    def command(self, site: StartSite) -> Command:
        file = site.scratch / "spillway.yaml"
        config = _spillway_config(site)
        if self.backends_under_rules:
            config |= every_rule(self.backends_under_rules, f"{site.upstream}/v1")
        if self.engines:
            config["backends"] = [_discovered(self.engines, site), *cast("list[object]", config["backends"])[1:]]
        if self.confident:
            config["confidence"] = {"threshold": 0.1, "escalate_to": ["cloud"]}
        file.write_text(yaml.safe_dump(config))
        created = self._run("keys", "create", "bench", "--json", "--config", str(file))
        if created.returncode != 0:
            raise Unavailable(f"`spillway keys create` failed: {(created.stderr or created.stdout).strip()[-300:]}")
        # Without PYTHONPATH: it could put the modules of one checkout before those of another.
        argv = (str(self._command), "route", "--config", str(file))
        return Command(argv, {"PYTHONPATH": ""}, _secret(created.stdout))

    @property
    def _command(self) -> Path:
        return self.python.with_name("spillway")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [str(self._command), *arguments]
        env = {**os.environ, "PYTHONPATH": ""}
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=ROOT, env=env, check=False)


@dataclass(frozen=True, slots=True)
class Baseline:
    """Another checkout of Spillway, with a `.venv` of its own, under the same configuration as ours."""

    checkout: Path
    name: str = "baseline"
    what: str = "another checkout of Spillway, same configuration"

    def prepare(self) -> str:
        version = self._spillway.prepare()
        theirs, ours = hot_path(self._spillway.python), hot_path(Path(sys.executable))
        if theirs.split()[0] != ours.split()[0]:
            raise Unavailable(f"not comparable: the baseline's hot path is {theirs!r}, ours is {ours!r}")
        return f"{version} {_commit(self.checkout)}".strip()

    def command(self, site: StartSite) -> Command:
        return self._spillway.command(site)

    @property
    def _spillway(self) -> Spillway:
        return Spillway(python=self.checkout.resolve() / ".venv" / "bin" / "python")


def hot_path(python: Path) -> str:
    """Return how the router of an environment runs its hot path: "compiled" or "interpreted (reason)".

    Raises:
        Unavailable: the environment can't import the router.
    """
    argv = [str(python), "-c", "from spillway_router import compiled; print(compiled.state())"]
    env = {**os.environ, "PYTHONPATH": ""}
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env, cwd="/", check=False)
    if shown.returncode != 0:
        raise Unavailable(f"{python} can't import the router: {shown.stderr.strip()[-200:]}")
    return shown.stdout.strip()


def _spillway_version(python: Path) -> str:
    """Return the version of the distribution that provides the `spillway` command, whatever its name is.

    Raises:
        Unavailable: no distribution of the environment provides it.
    """
    code = (
        "import importlib.metadata as m\n"
        "print(next(d.version for d in m.distributions() for e in d.entry_points"
        " if (e.group, e.name) == ('console_scripts', 'spillway')))"
    )
    shown = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60, check=False)
    if shown.returncode != 0:
        raise Unavailable(f"no distribution in {python.parent.parent} provides `spillway`; run `make install`")
    return shown.stdout.strip()


def _commit(checkout: Path) -> str:
    """Return the short hash of a checkout's commit; empty where git does not report one."""
    argv = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    try:
        shown = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return shown.stdout.strip() if shown.returncode == 0 else ""


def _spillway_config(site: StartSite) -> dict[str, object]:
    price = {"input_per_million": "0.15", "output_per_million": "0.60"}
    cloud = {"name": "cloud", "provider": "generic", "base_url": f"{site.upstream}/v1", "api_key": "stub"}
    return {
        "listen": f"127.0.0.1:{site.port}",
        "gpu": {"price_per_hour": "1.39", "count": 1},
        "backends": [
            {"name": "local", "provider": "vllm", "local": True, "base_url": f"{site.upstream}/v1", "model": "demo"},
            {**cloud, "model": "demo", "price": price},
        ],
        "aliases": {"auto": {"chain": ["local", "cloud"]}, "demo": {"chain": ["local", "cloud"]}},
        "keys": {"required": True},
        "ledger": {"url": f"sqlite:///{site.scratch}/spillway.db"},
    }


def _discovered(engines: int, site: StartSite) -> dict[str, object]:
    """Return the local backend as one whose engines are listed in a file. The stub is each of them, below a path."""
    file = site.scratch / "engines"
    file.write_text("".join(f"{site.upstream}/engine{number}/v1\n" for number in range(engines)))
    local = {"name": "local", "provider": "vllm", "local": True, "model": "demo"}
    return {**local, "discover": "file", "discover_from": str(file)}


def _secret(shown: str) -> str:
    """Return the secret from the output of `spillway keys create --json`."""
    created = json.loads(shown)
    for name in ("key", "secret", "token"):
        if isinstance(created.get(name), str):
            return str(created[name])
    raise Unavailable(f"`spillway keys create --json` shows no key, only: {', '.join(created)}")


_ALL: tuple[System, ...] = (
    Bare(),
    Nginx(),
    VllmRouter(),
    LiteLlm(),
    LiteLlm("litellm-1.80", "Python, an older LiteLLM"),
    AsgiRelay(),
    Spillway(),
    Spillway("spillway-confident", "the same with streams scored and their first tokens held", confident=True),
    Spillway("spillway-rules-2", "two backends under every kind of rule", backends_under_rules=2),
    Spillway("spillway-rules-12", "twelve backends under every kind of rule", backends_under_rules=12),
    Spillway("spillway-engines-1", "one discovered engine", engines=1),
    Spillway("spillway-engines-64", "sixty-four discovered engines", engines=64),
)
SYSTEMS: dict[str, System] = {system.name: system for system in _ALL}
