"""Carry out a plan. Each step may use a value that an earlier step saved: `{offer}`, `{pod}`, `{instance}`,
`{stack}`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from spillway_router.core.redaction import Redactor
from spillway_router.deploy.order import PRICE, Command, DeployError, DeploymentPlan, Request, Save, Step

COMMAND_TIMEOUT_S = 1800.0
"""Long enough for `aws cloudformation deploy` and `helm --wait`."""


class NotThereError(DeployError):
    """The provider has nothing with that ID."""


class Api(Protocol):
    """A provider's HTTP API."""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make one call and return the JSON of its answer. Raises `DeployError`, for an unknown ID `NotThereError`."""


_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
"""The names of variables whose values no message shows. `AWS_ACCESS_KEY_ID` is an ID, which is no secret."""


class Shell:
    """Run programs with the given environment. Raises `DeployError` with what they printed on stderr, without the
    secrets of the environment: programs repeat a key that was refused, or the address that holds it."""

    def __init__(self, environment: Mapping[str, str], timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        self._environment = dict(environment)
        self._redactor = Redactor(value for name, value in environment.items() if _SECRET_NAME.search(name))
        self._timeout_s = timeout_s

    def run(self, argv: tuple[str, ...], standard_input: str) -> str:
        """Run a program and return its standard output."""
        try:
            completed = subprocess.run(
                argv,
                input=standard_input,
                capture_output=True,
                text=True,
                timeout=self._timeout_s,
                env=self._environment,
                check=False,
            )
        except FileNotFoundError as error:
            raise DeployError(f"the program {argv[0]} is not installed; docs/deploy says where to get it") from error
        except subprocess.TimeoutExpired as error:
            raise DeployError(
                f"{argv[0]} took more than {self._timeout_s:.0f} s; check in the provider's console what exists now"
            ) from error
        if completed.returncode != 0:
            output = self._redactor.cut((completed.stderr or completed.stdout).strip()[-2000:])
            raise DeployError(f"{argv[0]} {argv[1]} exited with status {completed.returncode}: {output}")
        return completed.stdout


@dataclass(frozen=True, slots=True)
class Performed:
    """What the steps of a plan created: its handle, and the price that the provider answered, in US dollars per hour of
    all GPUs as text, empty if it told none."""

    handle: str
    price: str = ""


def perform(plan: DeploymentPlan, api: Api | None, shell: Shell, report: Callable[[str], None]) -> Performed:
    """Carry out the steps in order and return what they created.

    Raises `DeployError` at the first step that fails; the message names what earlier steps created, which may cost
    money.
    """
    saved: dict[str, str] = {}
    for step in plan.steps:
        report(f"{plan.target}: {step.why}")
        try:
            _perform_step(step, api, shell, saved)
        except DeployError as error:
            values = ", ".join(f"{name} {value}" for name, value in saved.items())
            raise type(error)(f"{error}" + (f". Known so far: {values}" if values else "")) from error
    return Performed(_fill(plan.handle, saved), saved.get(PRICE, ""))


def _perform_step(step: Step, api: Api | None, shell: Shell, saved: dict[str, str]) -> None:
    if isinstance(step, Request):
        if api is None:
            raise DeployError("this target has no HTTP API")
        answer = api.call(step.method, _fill(step.path, saved), step.body)
    else:
        answer = _run(step, shell, saved)
    if step.save is not None:
        saved[step.save.name] = _pick(answer, step.save, step.why)
    if step.price is not None:
        with suppress(DeployError):  # the books then go by the price that was typed, and a warning says so
            saved[PRICE] = _pick(answer, step.price, step.why)


def _run(step: Command, shell: Shell, saved: dict[str, str]) -> Any:
    text = shell.run(tuple(_fill(word, saved) for word in step.argv), step.standard_input)
    if step.save is None and step.price is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise DeployError(f"{step.argv[0]} {step.argv[1]} printed something that is not JSON") from error


def _fill(text: str, saved: Mapping[str, str]) -> str:
    """Replace `{name}` by the saved value; other braces, such as those of JSON in an argument, stay as they are."""
    for name, value in saved.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _pick(answer: Any, save: Save, why: str) -> str:
    for key in save.path:
        try:
            answer = answer[key]
        except (KeyError, IndexError, TypeError) as error:
            hint = (
                "ask for less, or pay more" if save.name == "offer" else "it may run and cost money: check the console"
            )
            raise DeployError(f"no {save.name} in the answer to `{why}`: {hint}") from error
    return str(answer)
