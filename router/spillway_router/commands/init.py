"""`spillway init`: write a commented spillway.yaml from a few answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from spillway_router.commands.common import fail
from spillway_router.config.load import DEFAULT_FILE, ConfigError, parse
from spillway_router.core.money.tariff import TariffError, amount_of

_CLOUD_MODELS = {
    "groq": "openai/gpt-oss-20b",
    "together": "openai/gpt-oss-20b",
    "openai": "gpt-4o-mini",
    "openrouter": "openai/gpt-oss-20b",
    "cerebras": "gpt-oss-120b",
    "fireworks": "accounts/fireworks/models/gpt-oss-20b",
}
"""The model with which a cloud is entered; the file says that it can be changed."""


def init(
    file: Annotated[Path, typer.Option("--output", help="The file to write.")] = Path(DEFAULT_FILE),
    gpu_price: Annotated[
        str | None, typer.Option(help="USD per hour of one GPU; 0 for your own, unknown to leave it out.")
    ] = None,
    cloud: Annotated[
        list[str] | None, typer.Option(help=f"A cloud: {', '.join(_CLOUD_MODELS)}; again for more.")
    ] = None,
    keyword: Annotated[
        list[str] | None, typer.Option(help="A word that makes a request private; again for more.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="The most USD that clouds may cost in a day.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Ask what the GPU costs, which clouds to use and what must stay private, and write the configuration."""
    if file.exists() and not force:
        fail(f"{file} exists; name another with --output, or replace it with --force")
    asks = sys.stdin.isatty()
    price = gpu_price if gpu_price is not None else _ask("What does one GPU cost in USD per hour (0: your own)?", asks)
    clouds = cloud if cloud is not None else _words(_ask(f"Which clouds ({', '.join(_CLOUD_MODELS)})?", asks))
    keywords = keyword if keyword is not None else _words(_ask("Which words make a request private?", asks))
    daily = budget if budget is not None else _ask("How many USD may clouds cost in a day?", asks and bool(clouds))
    if "" in (gpu_price, budget):
        fail("an amount is empty; write USD such as 1.39, or leave the option out")
    unknown = [name for name in clouds if name not in _CLOUD_MODELS]
    if unknown:
        fail(
            f"cloud {unknown[0]!r} is not offered here; use {', '.join(_CLOUD_MODELS)}, or write it into the file later"
        )
    text = configuration(_amount("GPU price", price), clouds, keywords, _amount("budget", daily))
    try:
        parse(text, {})
    except ConfigError as error:  # a keyword that can't be one, say
        fail("\n".join(str(problem) for problem in error.problems))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{file} can't be written: {error.strerror or error}")
    typer.echo(f"wrote {file}. Next: spillway check -c {file}, then spillway up -c {file}")


def _ask(question: str, asks: bool) -> str:
    return str(typer.prompt(question, default="", show_default=False)).strip() if asks else ""


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _amount(what: str, text: str) -> str:
    """Return an amount of USD as text, "" for none or `unknown`. Anything else ends the command."""
    number = text.strip().removeprefix("$")
    if number in ("", "unknown"):
        return ""
    try:
        amount = amount_of(number)
    except TariffError as error:
        fail(f"{what} {error}")
    if amount < 0:
        fail(f"{what}: an amount can't be negative, and {text!r} is")
    return f"{amount:f}"


def configuration(gpu_price: str, clouds: Sequence[str], keywords: Sequence[str], daily_budget: str) -> str:
    """Return the text of a configuration with a comment above every group."""
    price = f'gpu: {{price_per_hour: "{gpu_price}"}}' if gpu_price else '# gpu: {price_per_hour: "1.39"}'
    chain = ", ".join(["local", *clouds])
    lines = [
        "# Spillway. Every setting: docs/configuration.md. Check this file with `spillway check`.",
        "listen: 127.0.0.1:8080",
        "",
        "# What one GPU costs in USD per hour; reports compare it with the clouds.",
        price,
        "",
        "# Where requests can go. The first is the engine that `spillway up` starts on this machine.",
        "backends:",
        '  - {name: local, provider: vllm, local: true, base_url: "http://127.0.0.1:8001/v1", model: demo}',
        *map(_backend_line, clouds),
        "",
        "# The name that clients ask for, and the order in which backends are tried.",
        f"aliases: {{auto: {{chain: [{chain}]}}}}",
        "",
        "# A request goes to a cloud when the first token would take longer than this on the GPU.",
        "slo: {ttft_ms: 2000, tpot_ms: 100}",
    ]
    if clouds and daily_budget:
        lines += [
            "",
            "# The most that clouds may cost in a day. A request that could cost more is refused before it leaves.",
            f'budgets: [{{scope: all, period: day, limit_usd: "{daily_budget}", alert_at: [0.5, 0.8, 1.0]}}]',
        ]
    if keywords:
        lines += [
            "",
            "# A request with one of these words never leaves this machine.",
            f"privacy: {{default: any, keywords: {_flow(list(keywords))}}}",
        ]
    return "\n".join([*lines, ""])


def _backend_line(name: str) -> str:
    entry = f"  - {{name: {name}, provider: {name}, model: {_CLOUD_MODELS[name]}}}"
    return f"{entry}  # its key: export {name.upper()}_API_KEY"


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).strip()
