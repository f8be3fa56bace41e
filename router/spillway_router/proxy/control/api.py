"""The control API on FastAPI: models, request records, dry runs, usage, probes, metrics and administration."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from spillway_router.core.money.tariff import usd
from spillway_router.core.routing.experiments import title_of
from spillway_router.core.routing.model import (
    NO_PREFERENCES,
    CacheHit,
    Caller,
    Decision,
    Endpoint,
    Preferences,
    Refusal,
    RequestFacts,
    RequestRecord,
)
from spillway_router.core.routing.moving_arms import shares_of, stretches_of
from spillway_router.core.routing.policy import ConfidenceRule, Policy, backends_named, decide, is_offered
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.reports.days import GROUP_KEYS, RangeError, ReportQuery
from spillway_router.providers.interface import PATHS
from spillway_router.proxy.client.error_shapes import endpoint_of, error_body
from spillway_router.proxy.client.replies import refusal_headers
from spillway_router.proxy.control.count_tokens import add_count_tokens
from spillway_router.proxy.control.docs import add_docs
from spillway_router.proxy.control.models import OfferedModel, model_entry, model_list, speaks_anthropic
from spillway_router.proxy.control.openapi import described
from spillway_router.proxy.control.request_list import EntriesBefore, add_request_list
from spillway_router.proxy.control.requests import bounded_body, caller_of, host_of
from spillway_router.proxy.control.stored_responses import add_response_routes
from spillway_router.proxy.control.unknown_paths import cure_of
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.caller_signals import caller_signals
from spillway_router.proxy.exchange.ruling import in_arm, under_rules, with_traits
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.memory.sessions import session_of
from spillway_router.proxy.request.auth import ADMIN_ROLES, READER_ROLES, REVIEW_ROLES, USAGE_ROLES
from spillway_router.proxy.request.body import head_flaw
from spillway_router.proxy.request.errors import RefusedError, bad_request
from spillway_router.proxy.request.facts import read_facts
from spillway_router.proxy.request.large_body import in_thread, read_body

_USAGE_PARAMS = frozenset({"day", "month", "from", "to", "by", "timezone", "against"})
_INFERENCE = frozenset(f"/v1{path}" for path in PATHS.values())
_ENDPOINT_FIELDS: tuple[tuple[str, Endpoint], ...] = (
    ("messages", "chat"),
    ("prompt", "completions"),
    ("input", "embeddings"),
)
"""The field by which a dry run recognises the endpoint of a body."""


@dataclass(frozen=True, slots=True)
class ControlHooks:
    """The functions through which the control API reaches the rest of the router, so that it depends on none of it."""

    metrics: Callable[[], tuple[str, bytes]]
    """Return the content type and the exposition."""
    usage: Callable[[ReportQuery], Awaitable[Mapping[str, Any]]]
    """Return the requested report as JSON values. Raise RangeError for invalid days or an invalid grouping."""
    stored: Callable[[str], list[Mapping[str, Any]]]
    """Return the ledger entries of a request that memory no longer holds."""
    entries_before: EntriesBefore
    """Return the ledger entries of the newest requests before an id."""
    reload: Callable[[str], Awaitable[list[str]]]
    """Reload the configuration, as the given person asks. Return the problems that kept the running one in force; [] if
    there are none."""
    home: Callable[[Request], Awaitable[Response]]
    """Answer `GET /` of a browser."""
    is_leaving: Callable[[], bool] = lambda: False
    """Return whether the router was asked to stop, so that no more requests should come."""
    needs_restart: Callable[[], tuple[str, ...]] = tuple
    """Return the names of settings that a reload does not apply and that differ from those of the start."""


def build_control(services: Services, hooks: ControlHooks, version: str) -> FastAPI:
    """Build the control application."""
    # FastAPI's own pages would need no key, and load scripts from elsewhere: docs.py has others.
    api = FastAPI(
        title="Spillway", version=version, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )

    async def on_refused(request: Request, error: Exception) -> Response:
        key_id: str | None = getattr(request.state, "key_id", None)
        if key_id is not None and isinstance(error, RefusedError):  # others were counted where their key was checked
            services.verdicts.refused(key_id, error.refusal)
        return await _on_refused(request, error)

    api.add_exception_handler(RefusedError, on_refused)
    api.add_exception_handler(HTTPException, _on_http)
    api.add_exception_handler(LedgerError, _on_ledger)
    _add_probes(api, services, hooks)
    add_docs(api, services)
    _add_models(api, services)
    _add_requests(api, services, hooks)
    add_request_list(api, services, hooks.entries_before)
    add_count_tokens(api, services)
    add_response_routes(api, services)
    api.openapi = described(api)  # type: ignore[method-assign] # FastAPI's documented way to extend its description
    return api


async def _on_ledger(request: Request, error: Exception) -> Response:
    refusal = Refusal(503, "ledger_unavailable", f"This needs the ledger, which is away: {error}", retry_after_s=5)
    return await _on_refused(request, RefusedError(refusal))


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    refusal = error.refusal
    headers = {name.decode(): value.decode() for name, value in refusal_headers(refusal)}
    return JSONResponse(error_body(refusal, _error_shape(request)), refusal.status, headers)


def _error_shape(request: Request) -> Endpoint | None:
    """Return the endpoint in whose shape this client reads errors."""
    return "messages" if speaks_anthropic(request.headers) else endpoint_of(request.url.path)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return _method_not_allowed(request)
    code = "not_found" if error.status_code == 404 else "invalid_request"
    path = request.url.path
    cure = cure_of(path, lambda meant: meant in _INFERENCE or bool(_routes_of(request, meant)))
    message = f"{request.method} {path} does not exist. {f'{cure} ' if cure else ''}GET /docs lists the routes."
    return JSONResponse(error_body(Refusal(error.status_code, code, message), _error_shape(request)), error.status_code)


def _method_not_allowed(request: Request) -> Response:
    """Answer OPTIONS, and refuse other methods that the path does not have, with the ones that it has."""
    methods = {"OPTIONS"}
    for route in _routes_of(request, request.url.path):
        assert route.methods is not None
        methods |= route.methods | ({"HEAD"} if "GET" in route.methods else set())
    allow = {"allow": ", ".join(sorted(methods))}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=allow)
    message = f"{request.url.path} does not have the method {request.method}. Use one of {allow['allow']}."
    refusal = Refusal(405, "invalid_request", message)
    return JSONResponse(error_body(refusal, _error_shape(request)), 405, allow)


def _routes_of(request: Request, path: str) -> list[Route]:
    """Return the routes of a path: those that name it, or else those with a parameter in its place."""
    routes = [route for route in request.app.routes if isinstance(route, Route) and route.methods]
    named = [route for route in routes if route.path == path]
    scope = {**request.scope, "path": path}
    return named or [route for route in routes if route.matches(scope)[0] is not Match.NONE]


def _add_probes(api: FastAPI, services: Services, hooks: ControlHooks) -> None:
    @api.get("/", response_model=dict[str, str])
    async def index(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return await hooks.home(request)
        addresses = {"docs": "/docs", "models": "/v1/models", "usage": "/v1/usage", "ready": "/ready"}
        return JSONResponse({"name": "spillway", **addresses}, headers={"vary": "accept"})

    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/ready")
    async def ready(request: Request) -> Response:
        state = _ready(services, hooks)
        recognised = services.config().auth.recognises(request.headers, services.clock(), host_of(request))
        shown = state if recognised else {"ready": state["ready"]}
        return JSONResponse(shown, 200 if state["ready"] else 503)

    was_ready = False

    @api.get("/ping")
    async def ping() -> Response:
        nonlocal was_ready
        state = _ready(services, hooks)
        was_ready |= state["ready"]
        # 204 means that it will be ready, so that a load balancer waits; one whose engine died is to be replaced.
        waits = hooks.is_leaving() or not was_ready
        return Response(status_code=200 if state["ready"] else 204 if waits else 503)

    @api.get("/metrics")
    async def metrics(request: Request) -> Response:
        refusal = services.config().auth.scraper(request.headers, services.clock(), host_of(request))
        if refusal is not None:
            raise RefusedError(refusal)
        content_type, body = hooks.metrics()
        return Response(body, media_type=content_type)

    @api.post("/admin/reload")
    async def reload(request: Request) -> Response:
        caller = caller_of(services, request, ADMIN_ROLES)
        if "content-type" in request.headers:  # a page of another site can send forms and text without asking first
            flaw = head_flaw(request.headers, services.config().limits.body_bytes)
            if flaw is not None:
                raise RefusedError(flaw)
        problems = await hooks.reload(f"key {caller.key_id}")
        if problems:
            message = "The running configuration stays in force. " + " | ".join(problems)
            return JSONResponse(error_body(Refusal(400, "invalid_config", message)), 400)
        answer: dict[str, Any] = {"reloaded": True, "policy": services.config().policy.version}
        waiting = hooks.needs_restart()
        if waiting:
            answer["needs_restart"] = list(waiting)
        return JSONResponse(answer)


def _ready(services: Services, hooks: ControlHooks) -> dict[str, Any]:
    signals = services.board.current(services.clock())
    backends = {
        name: {
            "health": backend.health,
            "reason": backend.health_reason or backend.breaker_reason,
            "breaker_open": backend.breaker_open,
            "context_tokens": backend.engine_context_tokens,
            "lacks": sorted(backend.engine_lacks),
        }
        for name, backend in signals.backends.items()
    }
    is_ready = any(backend.health == "up" and not backend.breaker_open for backend in signals.backends.values())
    if hooks.is_leaving():
        return {"ready": False, "stopping": True, "backends": backends}
    return {"ready": is_ready, "backends": backends}


def _add_models(api: FastAPI, services: Services) -> None:
    async def models(request: Request, only: str | None = None) -> list[dict[str, Any]]:
        caller = caller_of(services, request, READER_ROLES)
        config, anthropic = services.config(), speaks_anthropic(request.headers)
        policy, signals = config.policy, services.board.current(services.clock())
        entries = []
        for name in dict.fromkeys([*policy.aliases, *_served_models(policy)]):
            if only is not None and name != only:
                continue
            named = backends_named(name, policy)
            if isinstance(named, str) or not is_offered(name, caller, policy):
                continue
            model = OfferedModel(name, named, is_alias=name in policy.aliases)
            entries.append(model_entry(model, signals, config.created, anthropic=anthropic))
            await asyncio.sleep(0)  # a provider with hundreds of models must not hold up the answers of others
        return entries

    @api.get("/v1/models")
    async def list_models(request: Request) -> dict[str, Any]:
        return model_list(await models(request), speaks_anthropic(request.headers))

    @api.get("/v1/models/{model_id:path}")
    async def get_model(model_id: str, request: Request) -> dict[str, Any]:
        entries = await models(request, only=model_id)
        if entries:
            return entries[0]
        message = f"Unknown model '{model_id}'. GET /v1/models lists the models."
        raise RefusedError(Refusal(404, "model_not_found", message, "model"))


def _served_models(policy: Policy) -> Iterator[str]:
    """Yield the full names of all models: of backends of any model, those that have a price and aren't withdrawn."""
    for name, backend in policy.backends.items():
        if backend.any_model:
            yield from (f"{name}/{model}" for model in policy.any_model[name].names())
        else:
            yield f"{backend.name}/{backend.model}"


def _add_requests(api: FastAPI, services: Services, hooks: ControlHooks) -> None:
    @api.get("/v1/requests/{request_id}")
    async def get_request(request_id: str, request: Request) -> Any:
        caller = caller_of(services, request, READER_ROLES)
        record = services.records.get(request_id)
        if record is not None and _may_see(caller, record.facts.caller.key_id):
            return describe(record, details=caller.role in ADMIN_ROLES or caller.key_id == record.facts.caller.key_id)
        rows = await LEDGER_CALLS.run(hooks.stored, request_id, limit_s=CLIENT_LIMIT_S) if record is None else []
        if rows and all(_may_see(caller, str(row["key_id"])) for row in rows):
            return {"id": request_id, "entries": rows}
        message = f"Unknown request {request_id}. Memory holds the newest requests, the ledger those that were charged."
        raise RefusedError(Refusal(404, "request_not_found", message))

    @api.post("/v1/route/explain")
    async def explain(request: Request) -> Any:
        caller = caller_of(services, request, READER_ROLES)
        config = services.config()
        raw = await bounded_body(services, request, caller)
        body = await read_body(raw, config.privacy.detectors, config.privacy.recognizer, key_id=caller.key_id)
        endpoint: Endpoint = next((e for field, e in _ENDPOINT_FIELDS if body.get(field) is not None), "chat")
        facts = await in_thread(
            caller.key_id, read_facts, "dry-run", endpoint, request.headers, body, caller, config.privacy
        )
        session = session_of(facts)
        if session is not None and await services.memory.sessions.private.is_private_anywhere(*session):
            facts = services.memory.sessions.with_privacy(facts)
        facts = await in_thread(caller.key_id, with_traits, config, facts, body)
        facts = services.memory.sessions.with_complexity(facts, services.clock())
        config = under_rules(services, config, facts)
        facts = in_arm(config, facts)
        decision = decide(facts, caller_signals(services, config, facts), config.policy)
        return {
            "facts": _facts(facts),
            **_decision(decision),
            "escalation": _escalation(config.policy.confidence),
            **_arm_shares(config),
        }

    @api.get("/v1/usage")
    async def usage(
        request: Request,
        day: Annotated[str, Query(description="day such as 2026-11-20, or today (the default)")] = "",
        month: Annotated[str, Query(description="month such as 2026-11, or this")] = "",
        first: Annotated[str, Query(alias="from", description="first day")] = "",
        last: Annotated[str, Query(alias="to", description="last day, inclusive; today by default")] = "",
        by: Annotated[list[str], Query(description=f"{', '.join(GROUP_KEYS)}; several: a,b")] = [],  # noqa: B006
        timezone: Annotated[str, Query(description="time zone of the days; report.timezone by default")] = "",
        against: Annotated[str, Query(description="priced model that groups are compared with; the cheapest")] = "",
    ) -> Any:
        """Report both sides of the cost, the GPU and the cloud, for the given days and groups."""
        caller_of(services, request, USAGE_ROLES)
        unknown = sorted(request.query_params.keys() - _USAGE_PARAMS)
        if unknown:
            raise bad_request(f"Unknown parameter {unknown[0]!r}. Use {', '.join(sorted(_USAGE_PARAMS))}.", unknown[0])
        try:
            return await hooks.usage(
                ReportQuery(
                    day=day, month=month, first=first, last=last, by=tuple(by), timezone=timezone, against=against
                )
            )
        except RangeError as error:
            raise bad_request(str(error), error.param) from None
        except LedgerError as error:
            raise RefusedError(
                Refusal(503, "ledger_unavailable", f"The report is not available now: {error}", retry_after_s=5)
            ) from None


def _may_see(caller: Caller, key_id: str) -> bool:
    """Return True for the caller's own requests, and for all of them if its role is viewer or admin."""
    return caller.role in REVIEW_ROLES or caller.key_id == key_id


def describe(record: RequestRecord, *, details: bool = True) -> dict[str, Any]:
    """Return a record as JSON values: money as decimal text in USD, times in milliseconds.

    Without `details`, what a backend wrote is left out of a private record: it may repeat the request.
    """
    details = details or record.facts.privacy.may_leave
    return {
        "id": record.facts.request_id,
        "status": record.status,
        "code": record.code,
        "backend": record.backend,
        "decision": record.decided,
        "reasons": record.reasons,
        "confidence": record.confidence,
        "cost_usd": usd(record.cost_nano),
        "total_ms": round(record.total_s * 1000, 2),
        "overhead_ms": round(record.overhead_s * 1000, 2),
        "facts": _facts(record.facts),
        "route": _decision(record.decision),
        "cache": None if record.cache_hit is None else _cache_hit(record.cache_hit),
        "attempts": [
            {
                "no": a.no,
                "backend": a.backend,
                "model": a.model,
                "started_ms": round(a.started_s * 1000, 2),
                "first_event_ms": None if a.first_event_s is None else round(a.first_event_s * 1000, 2),
                "ended_ms": round(a.ended_s * 1000, 2),
                "outcome": a.outcome.kind,
                "status": a.outcome.status,
                "detail": a.outcome.detail if details else "",
                "usage": None if a.outcome.usage is None else asdict(a.outcome.usage),
                "charge_usd": usd(a.charge_nano),
                "estimated": a.at_most_nano is not None,
                "at_most_usd": None if a.at_most_nano is None else usd(a.at_most_nano),
                "draining": a.draining,
                "discarded": a.discarded,
                "confidence": a.confidence,
                "left_out": a.left_out,
            }
            for a in record.attempts
        ],
    }


def _cache_hit(hit: CacheHit) -> dict[str, Any]:
    return {
        "request_id": hit.request_id,
        "model": hit.model,
        "age_s": round(hit.age_s, 1),
        "usage": asdict(hit.usage),
        "saved_usd": usd(hit.saved_nano),
        "similarity": None if hit.similarity is None else round(hit.similarity, 4),
    }


def _facts(facts: RequestFacts) -> dict[str, Any]:
    return {
        "endpoint": facts.endpoint,
        "model": facts.model,
        "stream": facts.stream,
        "prompt_bytes": facts.prompt_bytes,
        "max_tokens": facts.max_tokens,
        "needs": sorted(facts.needs),
        "may_leave": facts.privacy.may_leave,
        "privacy_reasons": facts.privacy.reasons,
        **({} if facts.traits is None else asdict(facts.traits)),
        **({"experiment": title_of(facts.experiment)} if facts.experiment else {}),
        **({} if facts.preferences == NO_PREFERENCES else {"preferences": _preferences(facts.preferences)}),
    }


def _preferences(wanted: Preferences) -> dict[str, Any]:
    """Return what the request's `models` and `provider` ask for, without what they leave as it is."""
    return {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in asdict(wanted).items()
        if value != getattr(NO_PREFERENCES, name)
    }


def _arm_shares(config: ActiveConfig) -> dict[str, Any]:
    """Return the shares in force of the experiment in which the request is."""
    arm = config.policy.ruling.arm
    if arm is None:
        return {}
    shares = shares_of(stretches_of(config.rules, arm.experiment))
    return {"shares": {name: round(share, 6) for name, share in shares.items()}}


def _escalation(rule: ConfidenceRule) -> dict[str, Any]:
    """Return from which confidence on a local answer is kept, and the steps that an unsure one goes to; the answer of a
    step without a threshold is final."""
    steps = [{"backend": name, "threshold": rule.step_threshold(name)} for name in rule.escalate_to]
    return {"threshold": rule.threshold, "steps": steps}


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "decision": decision.kind,
        "reasons": decision.reasons,
        "policy": decision.policy,
        "rules": decision.rules,
        "candidates": [
            {
                "backend": c.backend.name,
                "model": c.backend.model,
                "predicted_ttft_ms": round(c.ttft_s * 1000, 1),
                "prompt_tokens": c.prompt_tokens,
                "cost_bound_usd": usd(c.bound_nano),
                "reasons": c.reasons,
            }
            for c in decision.candidates
        ],
        "removed": [asdict(r) for r in decision.removed],
        "refusal": None if decision.refusal is None else asdict(decision.refusal),
    }
