"""Render a plan as text or JSON: the price first, then the machine's configuration, then every step as it would run."""

from __future__ import annotations

import json
import shlex
from decimal import Decimal
from typing import Any

from spillway_router.deploy.container import settings_text
from spillway_router.deploy.order import HOURS_PER_MONTH, Command, DeploymentOrder, DeploymentPlan, Request, Step


def price_lines(order: DeploymentOrder) -> tuple[str, ...]:
    """Return the price per hour and per month, in US dollars."""
    at_most = "at most " if order.interruptible else ""
    terms = f"{order.count} x {order.gpu} at {_usd(order.price_per_hour)}"
    return (
        f"price   {at_most}{_usd(order.per_hour)} per hour  ({terms})",
        f"        {at_most}{_usd(order.per_month)} per month ({HOURS_PER_MONTH} hours)",
        "        for GPU time only: the provider bills disks, volumes and traffic on top",
    )


def plan_text(plan: DeploymentPlan, order: DeploymentOrder, creates: bool) -> str:
    """Return everything that a dry run prints. The same order always gives the same text."""
    lines: list[str] = []
    if creates:
        lines += [*price_lines(order), f"model   {order.model}", f"image   {order.image}", ""]
        lines += ["spillway.yaml on the machine", *_indent(settings_text(order)), ""]
    for number, step in enumerate(plan.steps, 1):
        lines += [f"step {number}  {step.why}", *_step(step)]
    lines += ["", *(f"note    {note}" for note in plan.notes)] if plan.notes else []
    return "\n".join(lines)


def plan_json(plan: DeploymentPlan, order: DeploymentOrder, creates: bool) -> dict[str, Any]:
    """Return the same content as data; money is decimal text."""
    cost = {"per_hour_usd": f"{order.per_hour:f}", "per_month_usd": f"{order.per_month:f}"} if creates else {}
    return {
        **cost,
        "target": plan.target,
        "steps": [_step_json(step) for step in plan.steps],
        "notes": list(plan.notes),
    }


def _step(step: Step) -> list[str]:
    if isinstance(step, Request):
        body = _indent(json.dumps(step.body, indent=2)) if step.body else []
        return [f"    {step.method} {step.path}", *body]
    return [f"    {shlex.join(step.argv)}", *(_indent(step.standard_input) if step.standard_input else [])]


def _step_json(step: Step) -> dict[str, Any]:
    if isinstance(step, Command):
        return {"why": step.why, "argv": list(step.argv), "stdin": step.standard_input}
    return {"why": step.why, "method": step.method, "path": step.path, "body": step.body}


def _indent(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}" if amount == round(amount, 2) else f"${amount.normalize():f}"
