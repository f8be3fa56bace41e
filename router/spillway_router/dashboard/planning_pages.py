"""The addresses of the page What if: the recorded requests under another policy, and what a volume costs on rented GPUs
and in the cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spillway_router.dashboard.desk import Desk
from spillway_router.dashboard.viewer import Viewer
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.proxy.request.auth import USAGE_ROLES
from spillway_router.proxy.request.errors import bad_request

if TYPE_CHECKING:
    from spillway_router.core.routing.policy import Policy
    from spillway_router.dashboard.trial import TrialPage
    from spillway_router.replay.planning import PlanQuery

_MOST_TOKENS = 10**7


class PlanningPages:
    """The page What if of one router."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, api: FastAPI) -> None:
        """Add the addresses."""

        @api.get("/what-if", include_in_schema=False)
        async def what_if(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._what_if)

        @api.get("/what-if.json", include_in_schema=False)
        async def what_if_json(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._what_if)

        @api.get("/what-if/replay.json", include_in_schema=False)
        async def replay_json(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._replay)

    async def _replay(self, request: Request, viewer: Viewer) -> Response:  # noqa: ARG002 - a Handler
        from spillway_router.config.load import ConfigError
        from spillway_router.dashboard.trial import trial_of, trial_values
        from spillway_router.replay.trials import TrialError

        try:
            result = await self._desk.parts.trial(trial_of(request.query_params, self._policy()))
        except (TrialError, ConfigError) as error:
            raise bad_request(str(error)) from None
        return JSONResponse(trial_values(result))

    def _policy(self) -> Policy:
        return self._desk.parts.config().assembly.policy

    async def _trial(self, fields: Mapping[str, str]) -> tuple[TrialPage | None, str]:
        """Return what became of the trial that the fields of the form ask for, or why it can't be done; neither where
        nobody asked."""
        from spillway_router.config.load import ConfigError
        from spillway_router.dashboard.trial import trial_of, trial_page
        from spillway_router.replay.trials import TrialError

        if "replay" not in fields:
            return None, ""
        try:
            result = await self._desk.parts.trial(trial_of(fields, self._policy()))
        except (TrialError, ConfigError) as error:
            return None, str(error)
        return trial_page(result, self._desk.parts.zone()), ""

    async def _what_if(self, request: Request, viewer: Viewer) -> Response:
        from spillway_hardware.gpus import GPUS
        from spillway_router.dashboard.planning import planning_page
        from spillway_router.dashboard.trial import HEAD as TRIAL_HEAD
        from spillway_router.dashboard.trial import sliders
        from spillway_router.replay.planning import PlanError, plan_values, planned
        from spillway_router.replay.trials import ORDERS

        parts, today = self._desk.parts, self._desk.today()
        loaded = parts.config().loaded
        recorded = await self._recorded()
        fields = {**recorded, **{name: text for name, text in request.query_params.items() if text}}
        is_json = request.url.path.endswith(".json")
        table, problem = None, ""
        try:
            query = query_of(fields)
            table = await LEDGER_CALLS.run(lambda: planned(query, loaded, today), limit_s=CLIENT_LIMIT_S)
        except PlanError as error:
            problem = str(error).removeprefix("--")
        if is_json:
            if table is None:
                raise bad_request(problem)
            return JSONResponse(plan_values(table))
        trial, trial_problem = await self._trial(fields)
        values = {
            "trial": trial,
            "trial_problem": trial_problem,
            "trial_head": TRIAL_HEAD,
            "orders": ORDERS,
            "sliders": sliders(self._policy()),
            "page": None if table is None else planning_page(table),
            "problem": problem,
            "fields": fields,
            "asked": {name: text for name, text in request.query_params.items() if text},
            "gpus": list(GPUS),
            "chosen": fields.get("gpu") or loaded.settings.gpu.name or "",
            "query": request.url.query,
        }
        is_refused = trial_problem or (table is None and values["asked"])
        return self._desk.page(request, viewer, "what_if.html", values, 400 if is_refused else 200)

    async def _recorded(self) -> Mapping[str, str]:
        """Return the shape of a request of the last 7 days and their volume a month, as fields of the form; empty
        without an answer."""
        from spillway_router.dashboard.windows import window_of

        report = await self._desk.parts.report(window_of({"window": "7d"}, self._desk.today()).query())
        served = report.served
        if not served.answers:
            return {}
        per_day = max(1, round(served.answers / 7))
        return {
            "volume": f"{per_day}/day",
            "prompt_tokens": str(min(_MOST_TOKENS, round(served.prompt_tokens / served.answers))),
            "output_tokens": str(min(_MOST_TOKENS, round(served.completion_tokens / served.answers))),
        }


def query_of(fields: Mapping[str, str]) -> PlanQuery:
    """Return what the fields of the form ask. Raises PlanError, which names the field."""
    from spillway_router.core.money.whatif import OUTPUT_TOKENS, PROMPT_TOKENS, VOLUMES
    from spillway_router.replay.planning import PlanQuery

    gpu, price = fields.get("gpu", ""), fields.get("price", "")
    volume = fields.get("volume", "")
    return PlanQuery(
        gpus=(gpu,) if gpu else (),
        prices=(price,) if price else (),
        hours_per_day=_number(fields, "hours_per_day", 24.0, 24.0),
        volumes=(volume, *(_times(volume, factor) for factor in (10, 100))) if volume else VOLUMES,
        prompt_tokens=int(_number(fields, "prompt_tokens", PROMPT_TOKENS, _MOST_TOKENS)),
        output_tokens=int(_number(fields, "output_tokens", OUTPUT_TOKENS, _MOST_TOKENS)),
        load=_number(fields, "load", 80.0, 100.0) / 100,
    )


def _times(volume: str, factor: int) -> str:
    """Return a volume so many times as large: `1k/day` becomes `10k/day`. What can't be read stays as it is."""
    digits = len(volume) - len(volume.lstrip("0123456789_,"))
    number = volume[:digits].replace(",", "").replace("_", "")
    is_whole = number and not volume[digits:].startswith(".")
    return f"{int(number) * factor}{volume[digits:]}" if is_whole else volume


def _number(fields: Mapping[str, str], name: str, default: float, most: float) -> float:
    from spillway_router.replay.planning import PlanError

    text = fields.get(name, "")
    try:
        number = float(text) if text else float(default)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= most:
        raise PlanError(f"{name.replace('_', ' ')} is {text[:40]!r}; write a number from 0 to {most:,.0f}")
    return number
