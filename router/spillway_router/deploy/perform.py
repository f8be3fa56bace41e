"""Carries out a plan. Each step may use what an earlier one saved: `{offer}`, `{pod}`, `{instance}`, `{stack}`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from spillway_router.deploy.order import Command, DeployError, DeploymentPlan, Request, Save, Step

COMMAND_TIMEOUT_S = 1800.0
"""`aws cloudformation deploy` and `helm --wait` are the long ones."""


class Api(Protocol):
    """A provider's HTTP API."""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One call; the answer's JSON."""


class Shell:
    """Runs programs with the given environment. Raises DeployError with what they said on stderr."""

    def __init__(self, environment: Mapping[str, str], timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        self._environment = dict(environment)
        self._timeout_s = timeout_s

    def run(self, argv: tuple[str, ...], standard_input: str) -> str:
        """The program's standard output."""
        try:
            done = subprocess.run(
                argv,
                input=standard_input,
                capture_output=True,
                text=True,
                timeout=self._timeout_s,
                env=self._environment,
                check=False,
            )
        except FileNotFoundError as error:
            raise DeployError(
                f"the program {argv[0]} is not installed; docs/deploy says where it comes from"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise DeployError(
                f"{argv[0]} took more than {self._timeout_s:.0f} s; look at the provider's console what there is now"
            ) from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-2000:]
            raise DeployError(f"{argv[0]} {argv[1]} ended with status {done.returncode}: {said}")
        return done.stdout


def perform(plan: DeploymentPlan, api: Api | None, shell: Shell, tell: Callable[[str], None]) -> str:
    """Carry out the steps in order; answers the handle of what was made. Raises DeployError at the first that fails:
    what the steps before it made is told, as it may cost money."""
    saved: dict[str, str] = {}
    for step in plan.steps:
        tell(f"{plan.target}: {step.why}")
        try:
            _do(step, api, shell, saved)
        except DeployError as error:
            made = ", ".join(f"{name} {value}" for name, value in saved.items())
            raise DeployError(f"{error}" + (f". Known so far: {made}" if made else "")) from error
    return _fill(plan.handle, saved)


def _do(step: Step, api: Api | None, shell: Shell, saved: dict[str, str]) -> None:
    if isinstance(step, Request):
        if api is None:
            raise DeployError("this target has no HTTP API")
        answer = api.call(step.method, _fill(step.path, saved), step.body)
    else:
        answer = _run(step, shell, saved)
    if step.save is not None:
        saved[step.save.name] = _pick(answer, step.save, step.why)


def _run(step: Command, shell: Shell, saved: dict[str, str]) -> Any:
    text = shell.run(tuple(_fill(word, saved) for word in step.argv), step.standard_input)
    if step.save is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise DeployError(f"{step.argv[0]} {step.argv[1]} answered with something that is no JSON") from error


def _fill(text: str, saved: Mapping[str, str]) -> str:
    """Only whole words in braces: JSON and YAML in an argument stay as they are."""
    for name, value in saved.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _pick(answer: Any, save: Save, why: str) -> str:
    for key in save.path:
        try:
            answer = answer[key]
        except (KeyError, IndexError, TypeError) as error:
            hint = "ask for less, or pay more" if save.name == "offer" else "it may run and cost: look in the console"
            raise DeployError(f"no {save.name} in the answer to `{why}`: {hint}") from error
    return str(answer)
