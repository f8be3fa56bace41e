"""Derives from Settings how documents are read: schemas, parsers, thresholds and the rules of the review queue."""

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
from spillway_router.documents.schemas import Schema, SchemaError, select_schema, shipped_schemas
from spillway_router.documents.services import DocumentRules
from spillway_router.documents.uploads import FileRules

if TYPE_CHECKING:
    from spillway_router.documents.parser_files import Parser


def document_problems(settings: Settings) -> tuple[ConfigProblem, ...]:
    """Return what is wrong with the parsers and schemas of a configuration."""
    part = settings.documents
    problems: list[ConfigProblem] = []
    if part.parsers is not None:
        from spillway_router.documents.parser_files import ParserError, load_parsers

        try:
            load_parsers(part.parsers)
        except ParserError as error:
            problems.append(ConfigProblem("documents.parsers", 0, str(error)))
    for name, schema in part.schemas.items():
        try:
            select_schema(schema.json_schema, {})
        except SchemaError as error:
            problems.append(ConfigProblem(f"documents.schemas.{name}", 0, str(error)))
    names = {*shipped_schemas(), *part.schemas}
    if part.default_schema not in names:
        problem = f"no schema has the name {part.default_schema!r}; use one of {', '.join(sorted(names))}"
        problems.append(ConfigProblem("documents.default_schema", 0, problem))
    return tuple(problems)


def document_rules(settings: Settings, policy: Policy, calibration: Calibration | None) -> DocumentRules:
    """Return how documents are read. Raises ConfigError with every problem."""
    problems = document_problems(settings)
    if problems:
        raise ConfigError(problems)
    part = settings.documents
    configured = {name: Schema(name, schema.json_schema, schema.prompt) for name, schema in part.schemas.items()}
    cascade = CascadeRules(
        thresholds=Thresholds(part.thresholds.local, part.thresholds.parser, part.thresholds.external),
        external=_external(part, policy),
        trust=part.external_trust,
        parsers=_parsers(part.parsers),
        max_output_tokens=part.max_output_tokens,
        calibration=calibration,
    )
    return DocumentRules(
        cascade=cascade,
        schemas={**shipped_schemas(), **configured},
        default_schema=part.default_schema,
        max_chars=part.max_chars,
        max_in_progress=part.most_at_once,
        files=FileRules(part.ocr_languages, part.file_s, part.max_chars),
    )


def queue_rules(part: DocumentsPart) -> QueueRules:
    """Return what the review queue stores, and for how long."""
    return QueueRules(part.reviews, part.most_open, part.keep_days)


def _parsers(folder: Path | None) -> Callable[[], tuple[Parser, ...]]:
    """Return a source of parsers: those of the folder, read now, or the shipped ones, read when first needed."""
    if folder is None:
        return _shipped_parsers
    from spillway_router.documents.parser_files import load_parsers

    parsers = load_parsers(folder)
    return lambda: parsers


def _shipped_parsers() -> tuple[Parser, ...]:
    from spillway_router.documents.parser_files import shipped_parsers

    return shipped_parsers()


def _external(part: DocumentsPart, policy: Policy) -> tuple[str, ...]:
    """Return the configured external backends that are usable; one without its key is disabled."""
    return tuple(name for name in part.external or policy.confidence.escalate_to if name in policy.backends)
