"""The settings of documents: problems are reported with their fix, and a reload applies all of them or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.documents.harness import ask, setup
from tests.documents.papers import SCALE_PARSER, STRANGE, answer, truth
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.config import load as config
from spillway_router.config.documents import document_problems, document_rules
from spillway_router.config.load import ConfigError
from spillway_router.core.routing.policy import ConfidenceRule, Policy
from spillway_router.documents.schemas import Schema, SchemaError, select_schema, shipped_schemas
from spillway_router.testing.harness import error_of

PLAIN = "backends: [{name: local, provider: vllm, model: m, base_url: 'http://127.0.0.1:9/v1'}]\n"


def test_a_missing_backend_is_reported_with_its_line() -> None:
    with pytest.raises(ConfigError) as raised:
        config.parse(PLAIN + "documents: {external: [nobody]}\n", {})
    assert "line 2, documents.external.0: no backend has the name 'nobody'" in str(raised.value)


def test_all_problems_of_parsers_and_schemas_are_reported_at_once(tmp_path: Path) -> None:
    text = (
        f"documents:\n  parsers: {tmp_path}\n  default_schema: nothing\n"
        "  schemas: {list: {schema: {type: array}}, good: {schema: {type: object, properties: {a: {}}}}}\n"
    )
    problems = {problem.where: problem.problem for problem in document_problems(config.parse(text, {}))}
    assert set(problems) == {"documents.parsers", "documents.schemas.list", "documents.default_schema"}
    assert "has no .yaml file" in problems["documents.parsers"]
    assert "use one of biometry, good, list" in problems["documents.default_schema"]


def test_check_reports_the_problems(tmp_path: Path) -> None:
    (tmp_path / "spillway.yaml").write_text(
        f"{PLAIN}ledger: {{url: 'sqlite:///{tmp_path}/l.db'}}\ndocuments: {{parsers: {tmp_path}/none}}\n"
    )
    result = CliRunner().invoke(app, ["check", "--offline", "--json", "-c", str(tmp_path / "spillway.yaml")])
    assert result.exit_code == 1
    assert [mistake["where"] for mistake in json.loads(result.stdout)["mistakes"]] == ["documents.parsers"]


async def test_a_reload_loads_new_parsers_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    own = SCALE_PARSER.replace("schema: weight", "schema: biometry").replace("name: scale", "name: letters")
    (folder / "a.yaml").write_text(own)
    async with setup(answer("none"), folder=tmp_path, more=f"documents: {{parsers: {folder}}}\n") as (_, _, router):
        assert (await router.post({"text": "a", "parser": "letters"}, "/v1/documents/extract")).status_code == 200
        (folder / "a.yaml").write_text("name: [")
        reply = await router.reload()
        assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_config")
        assert "a.yaml" in error_of(reply)["message"]
        assert (await router.post({"text": "a", "parser": "letters"}, "/v1/documents/extract")).status_code == 200
        (folder / "a.yaml").write_text(own.replace("name: letters", "name: letters2"))
        assert (await router.reload()).status_code == 200
        assert (await router.post({"text": "a", "parser": "letters"}, "/v1/documents/extract")).status_code == 400


def test_external_backends_come_from_documents_then_from_escalation() -> None:
    policy = Policy("v", {}, {}, confidence=ConfidenceRule(escalate_to=("b",)))
    settings = config.parse(PLAIN, {})
    assert document_rules(settings, policy, None).cascade.external == ()  # b is disabled: its key is missing
    assert document_rules(settings, policy, None).max_in_progress == 64


async def test_external_backends_default_to_those_of_escalation() -> None:
    rule = "confidence: {escalate_to: [cloud]}\n"
    async with setup(answer(truth(STRANGE), 0.6), answer(truth(STRANGE)), rule) as (_, other, router):
        reading = await ask(router, STRANGE.text)
        assert (reading["step"], len(other.seen)) == ("external", 1)
        chat = await router.chat()
        assert chat.headers["x-spillway-decision"] in ("local", "escalated")


def test_a_request_names_a_schema_or_sends_one() -> None:
    shape = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert select_schema("biometry", shipped_schemas()).prompt == "Biometry report to JSON:\n"
    assert select_schema({**shape, "title": "mine"}, {}) == Schema("mine", {**shape, "title": "mine"})
    assert select_schema(shape, {}).name == "document"
    assert shipped_schemas()["biometry"].response_format()["json_schema"]["strict"] is True
    assert select_schema(shape, {}).response_format()["json_schema"]["strict"] is False
    assert select_schema({**shape, "title": "a b/c"}, {}).response_format()["json_schema"]["name"] == "a_b_c"
    with pytest.raises(SchemaError, match="larger than 64 KiB"):
        select_schema({**shape, "description": "x" * 70_000}, {})
