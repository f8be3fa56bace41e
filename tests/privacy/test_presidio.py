"""Presidio is optional: it is asked only where it is configured, and the text stays where it fails or is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from spillway_router.privacy.presidio import PresidioRecognizer, RecognizerMissingError
from spillway_router.testing import Answer
from spillway_router.testing.harness import pair

WHOLE = Answer.json({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})
MODULES = ("presidio_analyzer", "presidio_analyzer.nlp_engine", "spacy", "spacy.util")


class _Analyzer:
    """A stand-in that finds one name."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def analyze(self, text: str, language: str, entities: list[str] | None, score_threshold: float) -> list[Any]:
        if "break" in text:
            raise RuntimeError("the model broke")
        return [SimpleNamespace(entity_type="PERSON")] if "Ada Lovelace" in text else []


@pytest.fixture
def presidio(monkeypatch: pytest.MonkeyPatch) -> None:
    analyzer, nlp, spacy, util = (ModuleType(name) for name in MODULES)
    analyzer.AnalyzerEngine = _Analyzer  # type: ignore[attr-defined]
    nlp.NlpEngineProvider = lambda nlp_configuration: SimpleNamespace(create_engine=lambda: nlp_configuration)  # type: ignore[attr-defined]
    util.is_package = lambda name: name in ("en_core_web_lg", "de_core_news_lg")  # type: ignore[attr-defined]
    for name, module in zip(MODULES, (analyzer, nlp, spacy, util), strict=True):
        monkeypatch.setitem(sys.modules, name, module)


def recognizer(language: str = "en") -> PresidioRecognizer:
    return PresidioRecognizer(language, "", (), 0.5)


@pytest.mark.usefixtures("presidio")
def test_kinds_are_named_and_failures_count_as_private() -> None:
    assert recognizer().kinds("Dear Ada Lovelace") == ("presidio:person",)
    assert recognizer("de").kinds("nobody") == ()
    assert recognizer().kinds("x" * 99_990 + " Ada Lovelace") == ("presidio:person",)
    assert recognizer().kinds("break") == ("presidio:failed",)
    assert recognizer().kinds("x" * 1_000_001) == ("presidio:too_long",)


@pytest.mark.usefixtures("presidio")
def test_a_missing_model_is_named_with_what_installs_it() -> None:
    with pytest.raises(RecognizerMissingError, match="python -m spacy download fr_core_news_lg"):
        recognizer("fr")


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(RecognizerMissingError, match=r"pip install '\.\[presidio\]'"):
        recognizer()


@pytest.mark.usefixtures("presidio")
@pytest.mark.parametrize("text", ["Dear Ada Lovelace", "please break"])
async def test_what_presidio_finds_stays(text: str, tmp_path: Path) -> None:
    down = Answer.json({"error": {"code": 503}}, 503)
    async with pair(down, WHOLE, more="privacy: {presidio: {}}\n", folder=tmp_path) as (_, other, router):
        for content in (text, text + " an ordinary line" * 3_000):
            reply = await router.chat({"messages": [{"role": "user", "content": content}]})
            assert reply.status_code == 503
        assert not other.seen
        assert (await router.chat()).status_code == 200
