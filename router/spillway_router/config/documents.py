"""From Settings to what documents are read by: schemas, parsers, thresholds, the queue's rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spillway_router.config.load import ConfigError, ConfigProblem
from spillway_router.config.settings import DocumentsPart, Settings
from spillway_router.core.confidence.calibration import Calibration
from spillway_router.core.routing.policy import Policy
from spillway_router.documents.extract import CascadeRules, Thresholds
from spillway_router.documents.reviews import QueueRules
from spillway_router.documents.schemas import Schema, SchemaError, chosen, shipped_schemas
from spillway_router.documents.services import DocumentRules

if TYPE_CHECKING:
    from spillway_router.documents.parser_files import Parser


def document_mistakes(settings: Settings) -> tuple[ConfigProblem, ...]:
    """What is wrong with the parsers and schemas that a configuration names."""
    part = settings.documents
    mistakes: list[ConfigProblem] = []
    if part.parsers is not None:
        from spillway_router.documents.parser_files import ParserError, load_parsers

        try:
            load_parsers(part.parsers)
        except ParserError as error:
            mistakes.append(ConfigProblem("documents.parsers", 0, str(error)))
    for name, schema in part.schemas.items():
        try:
            chosen(schema.json_schema, {})
        except SchemaError as error:
            mistakes.append(ConfigProblem(f"documents.schemas.{name}", 0, str(error)))
    known = {*shipped_schemas(), *part.schemas}
    if part.default_schema not in known:
        problem = f"no schema has the name {part.default_schema!r}; use one of {', '.join(sorted(known))}"
        mistakes.append(ConfigProblem("documents.default_schema", 0, problem))
    return tuple(mistakes)


def document_rules(settings: Settings, policy: Policy, calibration: Calibration | None) -> DocumentRules:
    """What documents are read by. Raises ConfigError with every mistake."""
    mistakes = document_mistakes(settings)
    if mistakes:
        raise ConfigError(mistakes)
    part = settings.documents
    own = {name: Schema(name, schema.json_schema, schema.prompt) for name, schema in part.schemas.items()}
    cascade = CascadeRules(
        Thresholds(part.thresholds.local, part.thresholds.parser, part.thresholds.external),
        _external(part, policy),
        part.external_trust,
        _parsers(part.parsers),
        part.max_output_tokens,
        calibration,
    )
    schemas = {**shipped_schemas(), **own}
    return DocumentRules(cascade, schemas, part.default_schema, part.max_chars, part.most_at_once)


def _parsers(folder: Path | None) -> Callable[[], tuple[Parser, ...]]:
    """The shipped parsers when they are first needed; with a folder of one's own all of them, read now."""

    def shipped() -> tuple[Parser, ...]:
        from spillway_router.documents.parser_files import shipped_parsers

        return shipped_parsers()

    if folder is None:
        return shipped
    from spillway_router.documents.parser_files import load_parsers

    found = load_parsers(folder)
    return lambda: found


def queue_rules(part: DocumentsPart) -> QueueRules:
    """What the review queue keeps."""
    return QueueRules(part.reviews, part.most_open, part.keep_days)


def _external(part: DocumentsPart, policy: Policy) -> tuple[str, ...]:
    """The backends that are there, of those that the configuration names: one whose key is missing is off."""
    return tuple(name for name in part.external or policy.confidence.escalate_to if name in policy.backends)
