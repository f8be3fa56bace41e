"""`POST /v1/documents/extract`: the HTTP side of the extraction. The reviews' routes are in review_routes.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from spillway_router.aio.tasks import unless_gone
from spillway_router.core.money.tariff import usd
from spillway_router.core.routing.model import Caller
from spillway_router.documents.drafts import Draft
from spillway_router.documents.extract import Extraction, ExtractionRequest, StepReport, extract
from spillway_router.documents.files import FileText
from spillway_router.documents.request import read_extraction_request
from spillway_router.documents.review_routes import add_review_routes
from spillway_router.documents.reviews import QueuedReview, UnsureDocument
from spillway_router.documents.services import DocumentServices
from spillway_router.documents.uploads import Upload, read_upload
from spillway_router.proxy.control.requests import caller_of
from spillway_router.proxy.exchange.exchange import Admitted
from spillway_router.proxy.exchange.internal_exchange import InternalExchange
from spillway_router.proxy.memory.idempotency import HEADER, key_flaw
from spillway_router.proxy.request.auth import INFERENCE_ROLES
from spillway_router.proxy.request.errors import RefusedError, bad_request


def add_document_routes(api: FastAPI, documents: DocumentServices) -> None:
    """Add the routes of documents and of reviews."""
    _add_extract(api, documents)
    add_review_routes(api, documents)


def _add_extract(api: FastAPI, documents: DocumentServices) -> None:
    @api.post("/v1/documents/extract")
    async def extract_document(request: Request) -> Response:
        """Read values from a document. Send `text`, `messages` or a `file` (its `data` in base64, and its `name`), or a
        PDF, DOCX or picture as the body with the other fields in the query.

        Optional fields are `schema` (a name or a JSON schema), `parser` (auto, none or a name), `min_confidence` (0 to
        1, instead of the configured thresholds), `model`, and `review` (false: the document is not queued). The reply
        reports every step, the confidence of every field, and the cost. With an `idempotency-key`, a document that may
        leave is read, and paid, once."""
        caller = caller_of(documents.proxy, request, INFERENCE_ROLES)
        rules = documents.rules()
        documents.refuse_without_room(caller.key_id)
        upload = await read_upload(documents.proxy, request, caller, documents.files, rules.files)
        if upload is None:
            return Response(status_code=_NOBODY_LISTENS)
        body = upload.fields
        extraction = read_extraction_request(body, rules, () if upload.file is None else upload.file.unsure)
        review = True if body.get("review") is None else body["review"]
        if not isinstance(review, bool):
            raise bad_request("'review' must be true or false.", "review")
        with documents.place(caller.key_id):
            work = _judged_and_answered(documents, request, caller, upload, extraction, review=review)
            response = await unless_gone(request.receive, work)
        return Response(status_code=_NOBODY_LISTENS) if response is None else response


_NOBODY_LISTENS = 204
"""The status of what is returned for a client that left, and reaches nobody."""


async def _judged_and_answered(
    documents: DocumentServices,
    request: Request,
    caller: Caller,
    upload: Upload,
    extraction: ExtractionRequest,
    *,
    review: bool,
) -> Response:
    """Judge the document and answer. Cancelled when the client leaves."""
    exchange = await _open_exchange(documents, request, caller, upload, extraction)
    if extraction.min_confidence is None:
        extraction = replace(extraction, min_confidence=exchange.min_confidence)

    async def answer() -> Response:
        return await _answer(documents, exchange, extraction, caller, review=review, file=upload.file)

    return await _answer_once(documents, request, caller, upload.identity, exchange, answer)


async def _open_exchange(
    documents: DocumentServices,
    request: Request,
    caller: Caller,
    upload: Upload,
    extraction: ExtractionRequest,
) -> InternalExchange:
    """Open the document's exchange; its privacy is judged by all of the document's content.

    What was recognised in pictures counts as unreadable besides: a detector sees only what the recogniser made of it.
    """
    body = upload.fields
    pictures = {"images": 1} if upload.file is not None and upload.file.recognised else {}
    content = {
        **pictures,
        "model": extraction.model,
        "messages": extraction.messages or extraction.schema.messages(extraction.text, local=False),
        **({"metadata": body["metadata"]} if "metadata" in body else {}),
    }
    services = documents.proxy
    admitted = Admitted(services.config(), caller, services.clock())
    also = {name: value for name, value in body.items() if name != "messages"}
    return await InternalExchange.open(
        services, admitted, dict(request.headers), content, task=extraction.schema.name, also=also
    )


async def _answer_once(
    documents: DocumentServices,
    request: Request,
    caller: Caller,
    body: Mapping[str, Any],
    exchange: InternalExchange,
    answer: Callable[[], Awaitable[Response]],
) -> Response:
    """Answer, or repeat the reply of the same request. A private document is free and its reply is never stored, so its
    key has no effect."""
    key = request.headers.get(HEADER)
    if key is None:
        return await answer()
    flaw = key_flaw(key)
    if flaw is not None:
        raise RefusedError(flaw)
    if not exchange.privacy.may_leave:
        return await answer()
    content = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return await documents.extractions.run((caller.key_id, key), content, exchange.request_id, answer)


async def _answer(
    documents: DocumentServices,
    exchange: InternalExchange,
    request: ExtractionRequest,
    caller: Caller,
    *,
    review: bool,
    file: FileText | None,
) -> Response:
    await exchange.enter()
    status, code = 499, "client_left"
    try:
        extraction = await extract(exchange, request, documents.rules().cascade)
        queued = QueuedReview(None, "the request asks for no review")
        if extraction.status == "unsure" and review:
            queued = await documents.reviews.put(
                UnsureDocument(
                    exchange.request_id,
                    caller.key_id,
                    private=not exchange.privacy.may_leave,
                    request=request,
                    extraction=extraction,
                )
            )
        status, code = 200, ""
    except Exception:
        status, code = 500, "internal_error"
        raise
    finally:
        exchange.close(status, code)
    return _reply(exchange, request.schema.name, extraction, queued, file)


def _reply(
    exchange: InternalExchange, schema: str, extraction: Extraction, queued: QueuedReview, file: FileText | None
) -> Response:
    """Return the reply. The places of values are those in the text, so a file's text comes along."""
    draft, cost_usd = extraction.draft, usd(extraction.cost_nano)
    answered = extraction.status == "answered"
    status = "answered" if answered else "unsure" if queued.id is None else "review"
    body = {
        "id": exchange.request_id,
        "object": "document.extraction",
        "status": status,
        "step": draft.step if answered and draft is not None else status,
        "values": None if draft is None else draft.values,
        "confidence": None if draft is None else draft.confidence,
        "calibrated": draft is not None and draft.calibrated,
        "fields": {} if draft is None else _fields(draft),
        "read_by": None if draft is None else {"step": draft.step, "backend": draft.backend, "model": draft.model},
        "schema": schema,
        "steps": [_step(report) for report in extraction.steps],
        "private": not exchange.privacy.may_leave,
        "privacy_reasons": exchange.privacy.reasons,
        "review_id": queued.id,
        "review_why": "" if answered else queued.why,
        "cost_usd": cost_usd,
        **({} if file is None else {"file": {"text": file.text, "recognised": file.recognised}}),
    }
    headers = {"x-request-id": exchange.request_id, "x-spillway-cost-usd": cost_usd}
    if draft is not None:
        headers["x-spillway-backend"] = draft.backend
        if draft.confidence is not None:
            headers["x-spillway-confidence"] = f"{draft.confidence:.4f}"
    return JSONResponse(body, headers=headers)


def _fields(draft: Draft) -> dict[str, Any]:
    return {
        pointer: {
            "value": reading.value,
            "confidence": reading.confidence,
            "span": None if reading.place is None else [reading.place.start, reading.place.end],
            "why": reading.why,
        }
        for pointer, reading in draft.fields.items()
    }


def _step(report: StepReport) -> dict[str, Any]:
    return {
        "step": report.step,
        "outcome": report.outcome,
        "backend": report.backend,
        "model": report.model,
        "confidence": report.confidence,
        "threshold": report.threshold,
        "why": report.why,
        "cost_usd": usd(report.cost_nano),
    }
