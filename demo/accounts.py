"""The accounts of both sides after the run: the product's ledger through its own report, and the fake cloud's bill."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import httpx

from demo.product import CloudProcess, Product, spillway

_TIMEOUT_S = 60.0


class AccountsError(Exception):
    """The accounts of one side could not be read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class RunTotals:
    """Totals of one run. `*_nano` are nano-dollars (1e-9 USD); `seen` holds the hashes of all texts that the cloud
    received.

    Of `ledger_requests`, the cost of `unsure` is an estimate, as they were broken off: in all `estimated_nano`, and at
    most `at_most_nano`.
    """

    ledger_nano: int
    ledger_requests: int
    unsettled: int
    unsure: int
    estimated_nano: int
    at_most_nano: int
    fixed_nano: int
    used_nano: int
    idle_nano: int
    bill_nano: int
    bill_requests: int
    seen: frozenset[str]


def report_text(product: Product, columns: int) -> str:
    """Return the output of `spillway report` at a width of `columns`.

    Raises:
        AccountsError: the command fails.
    """
    return _run(
        replace(product, env={**product.env, "COLUMNS": str(columns)}), "report", "--config", str(product.config)
    )


def read(product: Product, cloud: CloudProcess) -> RunTotals:
    """Read the accounts of both sides.

    Raises:
        AccountsError: one of them can't be read.
    """
    try:
        report = json.loads(_run(product, "report", "--json", "--config", str(product.config)))
    except ValueError as error:
        raise AccountsError(f"`spillway report --json` printed no JSON: {error}") from error
    key = {"authorization": f"Bearer {cloud.key}"}
    bill, seen = _get(f"{cloud.root}/bill", key), _get(f"{cloud.root}/seen", key)
    try:
        return RunTotals(
            **_ledger(report),
            bill_nano=bill["nano_usd"],
            bill_requests=bill["requests"],
            seen=frozenset(seen["documents"]),
        )
    except (KeyError, TypeError) as error:
        raise AccountsError(f"the books lack {error!r}") from error


def _ledger(report: Any) -> dict[str, int]:
    cloud, fixed = report["cloud"], report["fixed"]
    return {
        "ledger_nano": int(cloud["cost_nano"]),
        "ledger_requests": int(cloud["served"]["attempts"]),
        "unsettled": int(cloud["unsettled"]),
        "unsure": int(cloud["unsure"]),
        "estimated_nano": int(cloud["estimated_nano"]),
        "at_most_nano": int(Decimal(cloud["at_most_usd"]).scaleb(9)),
        "fixed_nano": int(fixed["billed_nano"]),
        "used_nano": int(fixed["used_nano"]),
        "idle_nano": int(fixed["idle_nano"]),
    }


def _run(product: Product, *arguments: str) -> str:
    command = spillway(*arguments)
    environment = {**os.environ, **product.env}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AccountsError(f"`spillway {arguments[0]}` did not run: {error}") from error
    if done.returncode != 0:
        raise AccountsError(f"`spillway {arguments[0]}` ended with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def _get(url: str, headers: Mapping[str, str]) -> Any:
    try:
        answer = httpx.get(url, headers=headers, timeout=_TIMEOUT_S, trust_env=False)
        answer.raise_for_status()
        return answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise AccountsError(f"{url} could not be read: {error}") from error
