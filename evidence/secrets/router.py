"""A router in a process of its own, through good and bad days, with a secret wherever it takes one."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from evidence.deploy_commands import spillway
from evidence.secrets import repeating
from evidence.secrets.canaries import Written
from spillway_router.testing import FaultUpstream
from spillway_router.testing.processes import SpillwayProcess, await_ready, eventually, running

NAMES: Final[Mapping[str, str]] = {
    "CLOUD_KEY": "provider key by ${VARIABLE}",
    "GROQ_API_KEY": "provider key by its usual variable",
    "SPILLWAY_METRICS_TOKEN": "scrape token by its variable",
    "RUNPOD_API_KEY": "key of RunPod",
    "VAST_API_KEY": "key of Vast.ai",
    "AWS_SECRET_ACCESS_KEY": "secret key of AWS",
    "HF_TOKEN": "token of the model hub",
}
"""The variables of the environment that hold a canary."""
ROLES: Final = ("inference", "viewer", "admin")
PATHS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
PAGES: Final = ("/", "/health", "/ready", "/ping", "/metrics", "/docs", "/openapi.json", "/v1/models", "/v1/usage",
                "/v1/reviews", "/v1/reviews/x", "/v1/requests/x", "/v1/no-such-route")  # fmt: skip
TIMEOUT_S: Final = 30.0


def environment(secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that hold canaries."""
    return {variable: secrets[name] for variable, name in NAMES.items()}


def backends(secrets: Mapping[str, str], url: str) -> list[dict[str, Any]]:
    """Return a backend for each place of a key and each case, so that no breaker keeps a case from happening."""
    price = {"input_per_million": "1", "output_per_million": "2"}
    paid = {"model": "m", "base_url": url, "price": price}
    kinds: dict[str, dict[str, Any]] = {
        "engine": {
            "provider": "vllm",
            "local": True,
            "model": "m",
            "base_url": url,
            "api_key": secrets["key of the engine"],
        },
        "file": {"provider": "generic", "api_key": secrets["provider key in the file"], **paid},
        "variable": {"provider": "generic", "api_key": "${CLOUD_KEY}", **paid},
        "header": {
            "provider": "generic",
            "api_key": secrets["provider key beside a header"],
            "headers": {"x-gateway-token": secrets["header of a backend"]},
            **paid,
        },
        "usual": {"provider": "groq", **paid},
    }
    return [{"name": f"{kind}-{case}", **values} for kind, values in kinds.items() for case in repeating.CASES]


def configuration(secrets: Mapping[str, str], url: str, folder: Path) -> str:
    """Return a configuration with a secret in every setting that takes one."""
    rows = backends(secrets, url)
    values = {
        "listen": "127.0.0.1:0",
        "backends": rows,
        "aliases": {
            **{row["name"]: {"chain": [row["name"]]} for row in rows},
            "auto": {"chain": ["engine-whole", "file-whole"]},
        },
        "budgets": [{"scope": "all", "period": "day", "limit_usd": "100", "alert_at": [0.00000001]}],
        "alerts": {
            "webhook_url": f"{url.removesuffix('/v1')}/hook/{secrets['address of the webhook'].replace('/', '')}",
            "secret": secrets["secret of the webhook"],
        },
        "metrics": {"token": secrets["scrape token"]},
        "keys": {"required": True},
        "limits": {"stall_s": 1.5, "first_event_s": 8, "answer_s": 8, "stop_s": 2},
        "gpu": {"price_per_hour": "1"},
        "ledger": {"url": f"sqlite:///{folder / 'data' / 'ledger.db'}", "away_after_ms": 30_000},
    }
    return yaml.safe_dump(values, sort_keys=False)


@dataclass(slots=True)
class Site:
    """A folder with a configuration, the environment of a build, and the keys of the router."""

    folder: Path
    written: Written
    env: Mapping[str, str]
    build: str
    keys: dict[str, str]

    @property
    def config(self) -> Path:
        """The configuration's file."""
        return self.folder / "spillway.yaml"

    def make_keys(self) -> None:
        """Create a key for each role; only the command's own output may show it."""
        (self.folder / "data").mkdir(exist_ok=True)
        for role in ROLES:
            words = ("keys", "create", f"of-{role}", "--role", role, "-c", str(self.config), "--json")
            done = spillway(self.folder, *words, env=self.env)
            self.keys[role] = json.loads(done.out)["key"]
            self.written.secrets[f"{role} key"] = self.keys[role].rsplit("-", 1)[-1]
            self.written.add(f"keys create {role}", done.out + done.err, {f"{role} key"})

    def add_files(self) -> None:
        """Search every file but the configuration, which is the user's own."""
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path != self.config and "bin" not in path.parts:
                self.written.add(f"{self.build}: file {path.relative_to(self.folder)}", path.read_bytes())


async def good_and_bad_days(site: Site) -> None:
    """Run a router through answers, refusals, faults of upstreams, wrong keys, reloads, a crash and a new start."""
    async with FaultUpstream() as upstream:
        upstream.choose = repeating.answer
        site.config.write_text(configuration(site.written.secrets, upstream.url, site.folder))
        await asyncio.to_thread(site.make_keys)
        with running("route", site.config, site.env) as process:
            await asyncio.to_thread(await_ready, process.url)
            await _ask_everything(site, process, upstream)
            await asyncio.to_thread(_reload, site, process)
            _look_at(site, process)
            await _crash(site, process, upstream)
        site.written.add(f"{site.build}: output of the router that was killed", process.text)
        site.add_files()
        with running("route", site.config, site.env) as process:
            await asyncio.to_thread(await_ready, process.url)
            await _ask_everything(site, process, upstream, cases=("whole", "status-401"))
            _look_at(site, process)
        site.written.add(f"{site.build}: output of the router after the crash", process.text)
        site.add_files()
        for row in upstream.seen:
            site.written.happened("webhook called", row.path.startswith("/hook/"))


async def _ask_everything(
    site: Site, process: SpillwayProcess, upstream: FaultUpstream, cases: tuple[str, ...] = tuple(repeating.CASES)
) -> None:
    async with httpx.AsyncClient(base_url=process.url, timeout=TIMEOUT_S, trust_env=False) as client:
        for row in backends(site.written.secrets, upstream.url):
            case = row["name"].partition("-")[2]
            if case in cases:
                before = len(upstream.seen)
                await asyncio.gather(*(_ask(site, client, row["name"], path) for path in PATHS))
                site.written.happened(f"called {row['name']}", len(upstream.seen) - before)
        await _pages(site, client)
        await _wrong_keys(site, client)


async def _ask(site: Site, client: httpx.AsyncClient, name: str, path: str) -> None:
    """Send one request of a case, and look at what is recorded of it."""
    case = name.partition("-")[2]
    text = f"say case-{case}"
    body = {"model": name, **_content(path, text)}
    if path != "/v1/embeddings":
        body["stream"] = case in repeating.STREAMED
    headers = {"authorization": f"Bearer {site.keys['inference']}"}
    for route in ("/v1/route/explain", path) if path == PATHS[0] else (path,):
        reply = await client.post(route, json=body, headers=headers)
        _add(site, f"reply of {route} to {name}", reply, body=case not in repeating.RELAYED)
    request_id = reply.headers.get("x-request-id", "none")
    for role in ("inference", "viewer"):
        record = await client.get(f"/v1/requests/{request_id}", headers={"authorization": f"Bearer {site.keys[role]}"})
        _add(site, f"record of {name} for {role}", record)


def _content(path: str, text: str) -> dict[str, Any]:
    """Return the fields of a body that a route needs."""
    messages = [{"role": "user", "content": text}]
    fields: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": messages, "max_tokens": 5},
        "/v1/completions": {"prompt": text, "max_tokens": 5},
        "/v1/embeddings": {"input": text},
        "/v1/responses": {"input": text, "max_output_tokens": 16},
        "/v1/messages": {"messages": messages, "max_tokens": 5},
    }
    return fields[path]


def _add(site: Site, place: str, reply: httpx.Response, may_have: tuple[str, ...] = (), *, body: bool = True) -> None:
    head = "\n".join(f"{name}: {value}" for name, value in reply.headers.items())
    content = reply.content if body else b""
    site.written.add(f"{site.build}: {place}", head.encode() + b"\n" + content, may_have)


async def _pages(site: Site, client: httpx.AsyncClient) -> None:
    """Read every page as everybody, and ask for explanations."""
    callers = {**site.keys, "scraper": site.written.secrets["scrape token"], "nobody": ""}
    for caller, key in callers.items():
        headers = {"authorization": f"Bearer {key}"} if key else {}
        for page in PAGES:
            _add(site, f"page {page} for {caller}", await client.get(page, headers=headers))


async def _wrong_keys(site: Site, client: httpx.AsyncClient) -> None:
    """Send secrets where they don't belong. Whoever sent one may read it again; nobody else may."""
    for name, secret in list(site.written.secrets.items()):
        # An almost right key must not be shown either.
        for key in (secret, site.keys["admin"][:-1] + "x"):
            reply = await client.post("/v1/chat/completions", json={}, headers={"authorization": f"Bearer {key}"})
            _add(site, f"refusal of {name} as a key", reply, (name, "admin key"))
        good = {"authorization": f"Bearer {site.keys['inference']}"}
        for reply in (
            await client.get("/v1/models", params={"api_key": secret}, headers=good),
            await client.get(f"/v1/{secret.replace('/', '')}", headers=good),
            await client.post("/v1/chat/completions", json={"model": secret, "messages": []}, headers=good),
            await client.post(
                "/v1/chat/completions",
                json={"model": "m", "messages": [{"role": "user", "content": "x"}]},
                headers={**good, "x-spillway-provider": "nobody", "x-spillway-provider-key": secret},
            ),
        ):
            _add(site, f"refusal of {name} in the wrong place", reply, (name,))
    site.written.happened("wrong keys sent")


BROKEN: Final = (
    "api_kye: KEY", "backends: KEY", "backends: [KEY]", "backends: [{name: x, provider: generic, api_key: [KEY]}]",
    "backends: [{name: x, provider: generic, api_key:KEY}]", "backends:\n- name: x\n  api_key:KEY\n  model: m",
    "backends: [{name: x, provider: generic, base_url: 'http://u:KEY@h/v1', model: m}]",
    "backends: [{name: x, provider: generic, base_url: 'http://h/v1?key=KEY', model: m}]",
    "backends: [{name: x, provider: generic, base_url: 'http://h/v1', model: m, api_key: 'a KEY'}]",
    "backends: [{name: x, provider: generic, base_url: 'http://h/v1', model: m, headers: {a: \"\\u0007KEY\"}}]",
    "backends: [{name: x, provider: generic, base_url: 'http://h/v1', model: m, headers: [KEY]}]",
    "backends: [{name: x, provider: generic, base_url: 'http://h/v1', model: m, headers: {'a: KEY': b}}]",
    "backends: [{name: x, provider: generic, base_url: 'http://h/v1', model: m, headers: {a: [KEY]}}]",
    "alerts: {webhook_url: 'ftp://h/KEY'}", "alerts: {webhook_url: 'KEY'}", "alerts: {secret: [KEY]}",
    "alerts: {webhook_url: 'https://[KEY'}", "alerts: KEY", "alerts: {secret:KEY}", "alerts: {secret : KEY: x}",
    "metrics: {token: [KEY]}", "metrics: {token: {a: KEY}}", "metrics: KEY", "metrics: {token:KEY}", "keys: KEY",
    "keys: {required: KEY}", "ledger: KEY", "ledger: {url:postgresql://u:KEY@h/db}",
    "ledger: {url: 'mysql://u:KEY@h/db'}", "ledger: {url: 'postgresql://u:KEY@[::1/db'}",
    "alerts: {secret: !KEY x}", "alerts: {secret: !!KEY x}", "alerts: {secret: !a!KEY x}", "alerts: {secret: *KEY }",
    "alerts: {secret: &KEY x, secret: &KEY y}", "alerts: {secret: \"KEY\\q\"}", "alerts: {secret: 'KEY",
    "KEY", "- KEY",
    "alerts: {secret: 'KEY' x}", "\tKEY", "alerts: {secret: |9\n  KEY}",
    "alerts: {secret: @KEY}", "alerts: {secret: `KEY}", "? KEY\n? KEY", "KEY: 1", "KEY: 1\nKEY: 2",
    "alerts: {secret: %KEY}", "%KEY\n---\na: b", "%TAG ! KEY\n---\na: !b c", "a: [KEY",
    *(f"alerts: {{secret: !!{tag} KEY}}" for tag in (
        "int", "float", "bool", "null", "timestamp", "binary", "set", "omap", "pairs", "map", "seq", "merge", "value",
        "python/name:KEY", "python/object:KEY", "python/object/apply:KEY")),
    "alerts: {secret: !!binary KEY\\xff}", "alerts: {<<: KEY}", "alerts: {<<: [KEY]}", "alerts: {[KEY]: x}",
    "alerts: {{KEY: x}: y}",
)  # fmt: skip
"""Configurations that are wrong where a secret, KEY, stands: a wrong type, a missing blank, a mark that YAML reads."""


def broken_configurations(secrets: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every broken configuration."""
    for text in BROKEN:
        yield text, text.replace("KEY", secrets["key in a broken file"])


def _reload(site: Site, process: SpillwayProcess) -> None:
    """Let the router read broken configurations, one by one, and then the good one again."""
    good = site.config.read_text()
    headers = {"authorization": f"Bearer {site.keys['admin']}"}
    for name, text in broken_configurations(site.written.secrets):
        site.config.write_text(text)
        reply = httpx.post(f"{process.url}/admin/reload", headers=headers, timeout=TIMEOUT_S, trust_env=False)
        _add(site, f"reload of {name}", reply)
        site.written.happened("broken reload", reply.status_code != httpx.codes.OK)
    site.config.write_text(good)
    process.process.send_signal(signal.SIGHUP)
    httpx.post(f"{process.url}/admin/reload", headers=headers, timeout=TIMEOUT_S, trust_env=False).raise_for_status()


def _look_at(site: Site, process: SpillwayProcess) -> None:
    """Read the router's command line, and those of its children with their environments."""
    pid = process.process.pid
    site.written.add(f"{site.build}: command line of the router", Path(f"/proc/{pid}/cmdline").read_bytes())


async def _crash(site: Site, process: SpillwayProcess, upstream: FaultUpstream) -> None:
    """Kill the router in the middle of a paid stream."""
    before = len(upstream.seen)
    body = {"model": "file-hang", "messages": [{"role": "user", "content": "case-hang"}], "stream": True}
    headers = {"authorization": f"Bearer {site.keys['inference']}"}

    async def hang() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client:
            await client.post(f"{process.url}/v1/chat/completions", json=body, headers=headers)

    call = asyncio.create_task(hang())
    await asyncio.to_thread(eventually, lambda: _grown(upstream, before), AssertionError)
    process.process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.ended)
    await asyncio.gather(call, return_exceptions=True)
    site.written.happened("router killed")


def _grown(upstream: FaultUpstream, before: int) -> None:
    assert len(upstream.seen) > before
