"""The addresses of the pages about the answers: their quality, and experiments."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spillway_router.dashboard.desk import Desk
from spillway_router.dashboard.viewer import Viewer
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.proxy.request.auth import USAGE_ROLES

if TYPE_CHECKING:
    from spillway_router.dashboard.experiment_arms import Experiments
    from spillway_router.dashboard.quality import Quality
    from spillway_router.dashboard.windows import Window

LIMIT_S = 30.0
"""The longest time that reading the labels or the arms may take."""
DAY_MS = 86_400_000


class QualityPages:
    """The pages about the answers of one router."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, api: FastAPI) -> None:
        """Add the addresses."""

        @api.get("/quality", include_in_schema=False)
        async def quality(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._quality)

        @api.get("/quality.json", include_in_schema=False)
        async def quality_json(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._quality)

        @api.get("/experiments", include_in_schema=False)
        async def experiments(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._experiments)

        @api.get("/experiments.json", include_in_schema=False)
        async def experiments_json(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._experiments)

    async def _quality(self, request: Request, viewer: Viewer) -> Response:
        from spillway_router.dashboard import quality
        from spillway_router.dashboard.windows import NAMES, window_of, words
        from spillway_router.ledger.reports.rows import FEEDBACK_HEAD

        today = self._desk.today()
        window = window_of(request.query_params, today)
        page = await self._quality_of(window)
        if request.url.path.endswith(".json"):
            return JSONResponse(asdict(page))
        values = {
            "page": page,
            "window": window,
            "windows": NAMES,
            "days_words": words(window, today),
            "bins_head": quality.BINS_HEAD,
            "escalation_head": quality.ESCALATION_HEAD,
            "audits_head": quality.AUDITS_HEAD,
            "ratings_head": FEEDBACK_HEAD,
        }
        return self._desk.page(request, viewer, "quality.html", values)

    async def _quality_of(self, window: Window) -> Quality:
        from spillway_router.dashboard.quality import Confidence, quality_page

        parts = self._desk.parts
        report = await parts.report(window.query())
        active = parts.services.config()
        now = Confidence(
            rule=active.policy.confidence,
            calibration=active.scoring.calibration,
            thresholds=parts.thresholds(),
            counts=parts.audit_counts(),
            audit_share=active.scoring.audit_share,
        )

        def work() -> Quality:
            labels = (one for one in parts.labels.all(report.start_ms) if one.ts < report.end_ms)
            return quality_page(report, labels, now)

        return await LEDGER_CALLS.run(work, limit_s=LIMIT_S)

    async def _experiments(self, request: Request, viewer: Viewer) -> Response:
        from spillway_router.dashboard.experiment_arms import HEAD, LOOK_BACK
        from spillway_router.dashboard.windows import days_of

        since = LOOK_BACK.since(request.query_params)
        page = await self._experiments_of(days_of(since))
        if request.url.path.endswith(".json"):
            return JSONResponse(asdict(page))
        values = {"page": page, "since": since, "choices": LOOK_BACK.links, "head": HEAD}
        return self._desk.page(request, viewer, "experiments.html", values)

    async def _experiments_of(self, days: int) -> Experiments:
        from spillway_router.core.routing.moving_arms import shares_in_force
        from spillway_router.dashboard.experiment_arms import experiments_page
        from spillway_router.ledger.reports.experiments import ExperimentSetup, experiment_reports

        parts = self._desk.parts
        order = {part.name: [arm.name for arm in part.arms] for part in parts.config().loaded.settings.experiments}
        tariffs = {name: one.tariff for name, one in parts.services.config().policy.backends.items()}
        in_force = shares_in_force(parts.services.config().rules)
        now_ms = int(parts.services.wall() * 1000)
        span = (now_ms - days * DAY_MS, now_ms)

        def work() -> Experiments:
            table = parts.experiments
            sums, choices = table.arms(*span), table.dry_choices(*span)
            setup = ExperimentSetup(order, tariffs, table.moves(*span))
            return experiments_page(experiment_reports(sums, choices, setup, now_ms), days, in_force)

        return await LEDGER_CALLS.run(work, limit_s=LIMIT_S)
