"""Says what is wrong with the morning report, as configured."""

from __future__ import annotations

from collections.abc import Iterator

from spillway_router.config.load import ConfigProblem
from spillway_router.config.settings import Settings


def morning_problems(settings: Settings) -> Iterator[ConfigProblem]:
    """Yield what is wrong with it: a report that nobody gets."""
    part = settings.report.morning
    if part is None or part.mail is not None:
        return
    if not part.webhook or (part.webhook_url or settings.alerts.webhook_url) is None:
        problem = "sends the report to nobody; add report.morning.mail, or a URL as report.morning.webhook_url"
        yield ConfigProblem("report.morning", 0, problem)
