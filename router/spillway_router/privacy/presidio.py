"""Personal data that no pattern describes, such as names, found by Microsoft Presidio and a spaCy model.

Both come with the extra `presidio` and are imported only where `privacy.presidio` is set. Nothing is downloaded: the
model has to be installed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import Any

_LOG = logging.getLogger("spillway.privacy")
_MOST_CHARACTERS = 1_000_000
"""Longest text that is read; a longer one is taken for private."""
_PART = 50_000
_OVERLAP = 200


class RecognizerMissingError(Exception):
    """Presidio or its language model is not installed; the message says what to install."""


class PresidioRecognizer:
    """A `Recognizer`. A failure of the model is reported as a kind, so that the request counts as private."""

    def __init__(self, language: str, model: str, entities: Sequence[str], min_score: float) -> None:
        self._language = language
        self._entities = list(entities) or None
        self._min_score = min_score
        self._engine = _engine(language, model or _usual_model(language))

    def kinds(self, text: str) -> tuple[str, ...]:
        if len(text) > _MOST_CHARACTERS:
            return ("presidio:too_long",)
        kinds: set[str] = set()
        try:
            for at in range(0, len(text), _PART):
                part = text[max(0, at - _OVERLAP) : at + _PART]
                results = self._engine.analyze(
                    text=part, language=self._language, entities=self._entities, score_threshold=self._min_score
                )
                kinds.update(f"presidio:{result.entity_type.lower()}" for result in results)
        except Exception as error:  # a model may fail in any way, and the text must not leave then
            _LOG.warning("presidio failed with %s; the request is treated as private", type(error).__name__)
            return ("presidio:failed",)
        return tuple(sorted(kinds))


def _usual_model(language: str) -> str:
    return f"{language}_core_web_lg" if language in ("en", "zh") else f"{language}_core_news_lg"


def _engine(language: str, model: str) -> Any:
    try:
        analyzer = import_module("presidio_analyzer")
        provider = import_module("presidio_analyzer.nlp_engine").NlpEngineProvider
        is_package = import_module("spacy.util").is_package
    except ImportError as error:
        raise RecognizerMissingError(
            f"privacy.presidio needs Presidio ({error}): in the checkout, run pip install '.[presidio]'"
        ) from None
    if not is_package(model):
        raise RecognizerMissingError(f"privacy.presidio needs the model {model}: python -m spacy download {model}")
    configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    engine = provider(nlp_configuration=configuration).create_engine()
    return analyzer.AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
