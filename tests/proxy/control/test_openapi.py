"""The description at /openapi.json has every route with its body, its errors and its keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
from tests.proxy.control.helpers import WHOLE, bearer, get
from tests.proxy.entry.helpers import saying

from spillway_router.ledger.records import Role
from spillway_router.proxy.control.openapi import INFERENCE, OPEN, OWN
from spillway_router.proxy.entry.targets import ROUTES
from spillway_router.testing.harness import MESSAGES, Router, pair

ROLES: tuple[Role, ...] = ("viewer", "inference")
KEYS = "keys: {required: true}\n"
WITHOUT_BODY = {"/admin/reload", "/v1/responses/{response_id}/cancel"}


async def description(router: Router) -> dict[str, Any]:
    document: dict[str, Any] = (await get(router, "/openapi.json", router.admin)).json()
    return document


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        yield from ((method, path, operation) for method, operation in methods.items())


def resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**schema, "components": document["components"]}


async def test_every_route_is_described_and_every_described_route_exists() -> None:
    assert set(INFERENCE) == {path.decode() for path in ROUTES}
    async with pair(saying("hi")) as (_, _, router):
        described = {(method, path) for method, path, _ in operations(await description(router))}
        assert described == set(OWN) | {("post", path) for path in INFERENCE}


async def test_every_reference_of_the_description_leads_somewhere() -> None:
    async with pair(saying("hi")) as (_, _, router):
        document = await description(router)
        text = str(document)
        for reference in {part.partition("'")[0] for part in text.split("'$ref': '")[1:]}:
            assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
        assert "HTTPValidationError" not in text  # FastAPI's 422, which no route answers


async def test_every_writing_route_names_its_body_and_every_keyed_route_its_refusals() -> None:
    async with pair(saying("hi")) as (_, _, router):
        for method, path, operation in operations(await description(router)):
            writes = method in ("post", "put", "patch") and path not in WITHOUT_BODY
            assert ("requestBody" in operation) is writes, path
            if path not in OPEN:
                assert {"401", "403", "429"} <= operation["responses"].keys(), path
                assert operation["security"], path


@pytest.mark.parametrize("path", [path for path, operation in INFERENCE.items() if "messages" in str(operation.body)])
async def test_a_refusal_has_the_described_shape(path: str) -> None:
    async with pair(WHOLE, more=KEYS) as (_, _, router):
        keys = {role: bearer(router, role) for role in ROLES}
        document = await description(router)
        responses = document["paths"][path]["post"]["responses"]
        for headers, status in (({}, "401"), (keys["viewer"], "403"), (keys["inference"], "400")):
            reply = await router.client.post(path, json={"max_tokens": "many"}, headers=headers)
            assert str(reply.status_code) == status
            schema = responses[status]["content"]["application/json"]["schema"]
            jsonschema.validate(reply.json(), resolved(document, schema))


@pytest.mark.parametrize("path", INFERENCE)
async def test_a_usual_body_is_valid_under_the_description(path: str) -> None:
    body = {"messages": MESSAGES, "prompt": "x", "input": "x", "model": "auto", "max_tokens": 5}
    jsonschema.validate(body, INFERENCE[path].body or {})


async def test_options_names_the_methods_that_are_described() -> None:
    async with pair(saying("hi")) as (_, _, router):
        paths = (await description(router))["paths"]
        for path, methods in paths.items():
            reply = await router.client.options(path.replace("{", "a").replace("}", ""), headers=router.admin)
            allowed = {method.lower() for method in reply.headers["allow"].split(", ")} - {"head", "options"}
            assert allowed == set(methods), path


@pytest.mark.parametrize("path", INFERENCE)
async def test_a_wrong_method_is_refused_with_the_allowed_ones(path: str) -> None:
    async with pair(saying("hi")) as (_, _, router):
        reply = await get(router, path)
        assert (reply.status_code, reply.headers["allow"]) == (405, "POST, OPTIONS")
