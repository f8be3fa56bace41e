"""The address of the Fleet page: how many GPUs there should be, and why."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spillway_router.dashboard.desk import Desk
from spillway_router.dashboard.viewer import Viewer
from spillway_router.dashboard.windows import LookBack, days_of
from spillway_router.proxy.request.auth import USAGE_ROLES

LOOK_BACK = LookBack(("1d", "7d", "4w"), usual="7d")
HEAD = ("GPU", "because", "balance", "changes at")


class FleetPages:
    """The Fleet page of one router."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, api: FastAPI) -> None:
        """Add the addresses."""

        @api.get("/fleet", include_in_schema=False)
        async def fleet(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._fleet)

        @api.get("/fleet.json", include_in_schema=False)
        async def fleet_json(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._fleet)

    async def _fleet(self, request: Request, viewer: Viewer) -> Response:
        from spillway_router.config.load import ConfigError
        from spillway_router.core.fleet.scaler import SENTENCES
        from spillway_router.core.money.currency import IN_USD
        from spillway_router.replay.fleet_now import FleetError, decision_values

        since = LOOK_BACK.since(request.query_params)
        is_json = request.url.path.endswith(".json")
        try:
            now = await self._desk.parts.fleet(days_of(since))
        except (FleetError, ConfigError) as error:
            missing = str(error)
            if is_json:
                return JSONResponse({"gpus": None, "reasons": [], "missing": missing})
            return self._desk.page(request, viewer, "fleet.html", {"now": None, "missing": missing, "since": since})
        values = decision_values(now.decision)
        if is_json:
            return JSONResponse(
                {**values, "rented": now.rented, "requests": now.requests, "overflow_backend": now.overflow}
            )
        rows = [
            (
                str(one.layer),
                SENTENCES[one.token],
                IN_USD.money(round(one.balance_nano)),
                IN_USD.money(round(one.changes_at_nano)),
            )
            for one in now.decision.reasons
        ]
        shown = {"now": now, "rows": rows, "head": HEAD, "since": since, "choices": LOOK_BACK.links}
        return self._desk.page(request, viewer, "fleet.html", shown)
