"""Derives from Settings where answers are stored and by which rules, and says what is wrong with that."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping

from spillway_router.caching.open import CacheSettings
from spillway_router.config.cache_part import CachePart, SemanticPart
from spillway_router.config.fitted_file import FittedFile
from spillway_router.config.load import ConfigProblem, Findings
from spillway_router.core.caching.certificate import CertificateError, SemanticCertificate
from spillway_router.core.caching.rules import CacheRules, SemanticRules
from spillway_router.core.routing.model import Backend
from spillway_router.core.routing.spaces import serves_embeddings

_MIB = 1024 * 1024
_SEMANTIC = "cache.semantic"
_MAKE_ONE = "make one with `spillway calibrate-cache`"
_CERTIFICATE = FittedFile(
    setting="cache.semantic.certificate",
    from_json=SemanticCertificate.from_json,
    malformed=CertificateError,
    make_one=_MAKE_ONE,
)


def cache_problems(part: CachePart) -> Iterator[ConfigProblem]:
    """Yield what is wrong with the cache of a configuration."""
    if part.needs_redis and importlib.util.find_spec("redis") is None:
        problem = "needs the package redis; install spillway-llm[redis], or use memory or sqlite:///PATH"
        yield ConfigProblem("cache.store", 0, problem)
    if part.max_answer_mb > part.max_mb:
        yield ConfigProblem("cache.max_answer_mb", 0, "is above cache.max_mb, so that the largest answers have no room")


def semantic_rules(part: CachePart, backends: Mapping[str, Backend], findings: Findings) -> SemanticRules | None:
    """Return when similar questions get a stored answer; None if they never do. `backends` are those that can be used.
    The certificate is read; what is wrong is added to `findings`."""
    semantic = part.semantic
    if semantic is None:
        return None
    embedder = backends.get(semantic.embedder)
    if embedder is None or not embedder.local or not serves_embeddings(embedder):
        problem = f"{semantic.embedder!r} is no local backend that serves embeddings; name one that is and does"
        findings.problems.append(ConfigProblem("cache.semantic.embedder", 0, problem))
        return None
    certificate = _certificate(semantic, findings)
    if certificate is None:
        return None
    if not part.enabled:
        findings.warnings.append(ConfigProblem(_SEMANTIC, 0, "is unused while cache.enabled is false"))
        return None
    unusable = ""
    if certificate.model != embedder.model:
        unusable = f"was made for the model {certificate.model!r}, and {embedder.name} serves {embedder.model!r}"
    elif certificate.threshold is None:
        unusable = "certifies no threshold; it needs more labelled pairs or a larger --alpha"
    if unusable or certificate.threshold is None:
        problem = f"{unusable}, so that only requests of the same content get a stored answer; {_MAKE_ONE}"
        findings.warnings.append(ConfigProblem(_CERTIFICATE.setting, 0, problem))
        return None
    return SemanticRules(
        embedder=embedder.name,
        model=embedder.model,
        threshold=certificate.threshold,
        scripts=certificate.scripts,
        within_s=semantic.timeout_ms / 1000,
    )


def _certificate(part: SemanticPart, findings: Findings) -> SemanticCertificate | None:
    if part.certificate is None:
        problem = f"finds nothing without a certificate; {_MAKE_ONE}"
        findings.warnings.append(ConfigProblem(_SEMANTIC, 0, problem))
        return None
    return _CERTIFICATE.read(part.certificate, findings)


def cache_settings(part: CachePart, semantic: SemanticRules | None) -> CacheSettings | None:
    """Return the cache of a configuration; None if it is off."""
    if not part.enabled:
        return None
    rules = CacheRules(
        ttl_s=part.ttl_s,
        most_answer_bytes=int(part.max_answer_mb * _MIB),
        default=part.default,
        by_scope=dict(part.scopes),
        sampled=part.sampled,
        users_apart=part.users_apart,
        semantic=semantic,
    )
    return CacheSettings(part.store, int(part.max_mb * _MIB), part.timeout_ms / 1000, rules)
