"""Derives from Settings the rules of the policy, and what judges the text that they look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args
from zoneinfo import ZoneInfo

from spillway_router.config.experiments_part import ExperimentPart
from spillway_router.config.fitted_file import FittedFile
from spillway_router.config.load import ConfigProblem, Findings
from spillway_router.config.policy_part import (
    EffectsPart,
    EscalatePart,
    PolicyPart,
    PolicyRulePart,
    RangePart,
    WhenPart,
    minutes,
    own_thresholds,
    step_names,
)
from spillway_router.core.routing.experiments import CONTROL
from spillway_router.core.routing.model import Backend, Endpoint
from spillway_router.core.routing.ordering import split_suffix
from spillway_router.core.routing.policy import ConfidenceRule, Policy, backends_named
from spillway_router.core.routing.rules import DAYS, Conditions, Hours, Rule, Rules, Span
from spillway_router.core.routing.traits.learned import LearnedComplexity, LearnedComplexityError
from spillway_router.core.routing.traits.reader import TraitReader

_LEARNED_FILE = FittedFile(
    setting="policy.learned_complexity",
    from_json=LearnedComplexity.from_json,
    malformed=LearnedComplexityError,
    make_one="make one with `spillway calibrate-complexity`",
)
CLOUD, LOCAL = "cloud", "local"
"""The words of `forbid` that stand for all backends of a side."""
GENERATING = frozenset(get_args(Endpoint)) - {"embeddings"}
"""Endpoints whose requests a rule may send elsewhere without naming the endpoint. Another model's embeddings lie in
another space, so nothing but a rule that says so moves them."""


def policy_rules(
    part: PolicyPart, backends: Mapping[str, Backend], general: ConfidenceRule, findings: Findings
) -> Rules:
    """Return the rules. Problems are added to `findings`; backends that are disabled are left out of chains."""
    rules: list[Rule] = []
    for place, rule in enumerate(part.rules):
        check_effects(f"policy.rules.{place}", f"the rule {rule.name!r}", rule, backends, findings)
        rules.extend(_rules(rule, backends, general))
    return Rules(tuple(rules), ZoneInfo(part.timezone))


def unknown_arms(part: PolicyPart, experiments: Sequence[ExperimentPart]) -> Iterator[ConfigProblem]:
    """Yield a problem for each arm that a rule names and no experiment answers with."""
    titles = {f"{one.name}/{name}" for one in experiments for name in (CONTROL, *_answering(one))}
    for place, rule in enumerate(part.rules):
        for name in rule.when.experiment:
            if name not in titles:
                arms = ", ".join(sorted(titles)) or "there are no experiments"
                problem = f"no arm that answers is called {name!r}; write EXPERIMENT/ARM: {arms}"
                yield ConfigProblem(f"policy.rules.{place}.when.experiment", 0, problem)


def idle_conditions(part: PolicyPart, policy: Policy) -> Iterator[ConfigProblem]:
    """Yield a warning for each condition of a rule that no request can meet."""
    for place, rule in enumerate(part.rules):
        where = f"policy.rules.{place}.when"
        for language in rule.when.language:
            if language not in part.languages:
                problem = f"{language} is never found, as words of {', '.join(part.languages)} alone are looked for"
                yield ConfigProblem(f"{where}.language", 0, problem)
        for name in rule.when.alias:
            if not backends_named(split_suffix(name)[0], policy):
                problem = f"nothing here is called {name!r}, so the rule never holds; the aliases are {_few(policy)}"
                yield ConfigProblem(f"{where}.alias", 0, problem)


def _few(policy: Policy) -> str:
    return ", ".join(sorted(policy.aliases)[:12])


def idle_confidences(part: PolicyPart, general: ConfidenceRule) -> Iterator[ConfigProblem]:
    """Yield a problem for each rule about a confidence that no answer has."""
    for place, rule in enumerate(part.rules):
        if rule.when.confidence_below is not None and not general.escalate_to:
            problem = "no answer is judged while confidence.escalate_to names no backend that can be asked; add one"
            yield ConfigProblem(f"policy.rules.{place}.when.confidence_below", 0, problem)


def _answering(experiment: ExperimentPart) -> list[str]:
    return [arm.name for arm in experiment.arms if arm.shadow is None]


def trait_reader(part: PolicyPart, rules: Rules, learned: LearnedComplexity | None = None) -> TraitReader | None:
    """Return what judges requests; None if no rule looks at their text. `learned` is used where one looks at the
    complexity."""
    if not rules.reads_text:
        return None
    weights = {str(factor): weight for factor, weight in part.weights.items()}
    if not any(rule.when.complexity for rule in rules.rules):
        learned = None
    return TraitReader(
        languages=part.languages,
        more_words=part.words,
        weights=weights,
        long_words=part.long_words,
        learned=learned,
    )


def learned_complexity(part: PolicyPart, findings: Findings) -> LearnedComplexity | None:
    """Return what `policy.learned_complexity` holds; None without one. What is wrong with it is added to `findings`."""
    if part.learned_complexity is None:
        return None
    return _LEARNED_FILE.read(part.learned_complexity, findings)


def named_backends(part: PolicyPart) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the settings in which rules name backends, and the names."""
    for place, rule in enumerate(part.rules):
        yield from effects_named(f"policy.rules.{place}", rule)


def effects_named(where: str, part: EffectsPart) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the settings in which a rule or an arm names backends, and the names."""
    yield f"{where}.chain", part.chain
    yield f"{where}.prefer", part.prefer
    if isinstance(part.escalate, EscalatePart) and part.escalate.to:
        yield f"{where}.escalate.to", step_names(part.escalate.to)


def check_effects(
    where: str, title: str, part: EffectsPart, backends: Mapping[str, Backend], findings: Findings
) -> None:
    """Add to `findings` what is wrong with the effects of a rule or an arm."""
    findings.problems.extend(_local_steps(where, part, backends))
    if part.chain and not any(name in backends for name in part.chain):
        text = f"{title} sends nothing anywhere, because every backend of its chain is disabled"
        findings.warnings.append(ConfigProblem(f"{where}.chain", 0, text))


def rule_of(
    name: str, when: Conditions, part: EffectsPart, backends: Mapping[str, Backend], general: ConfidenceRule
) -> Rule:
    """Return one rule with all the effects."""
    return Rule(
        name,
        when,
        chain=_usable(part.chain, backends),
        prefer=_usable(part.prefer, backends),
        forbid=frozenset(_forbidden(part.forbid, backends.values())),
        confidence=None if part.escalate is None else _confidence(part.escalate, backends, general),
    )


def _rules(part: PolicyRulePart, backends: Mapping[str, Backend], general: ConfidenceRule) -> Iterator[Rule]:
    """Yield one rule for what it forbids and one for the rest: they concern different endpoints."""
    when = conditions(part.when)
    whole = rule_of(part.name, when, part, backends, general)
    if part.forbid:
        yield Rule(part.name, when, forbid=whole.forbid)
    if part.chain or part.prefer:
        chosen = replace(when, endpoints=when.endpoints or GENERATING)
        yield Rule(part.name, chosen, chain=whole.chain, prefer=whole.prefer)
    if part.escalate is not None:
        yield Rule(part.name, when, confidence=whole.confidence)


def _usable(names: Iterable[str], backends: Mapping[str, Backend]) -> tuple[str, ...]:
    return tuple(name for name in names if name in backends)


def _confidence(part: EscalatePart | str, backends: Mapping[str, Backend], general: ConfidenceRule) -> ConfidenceRule:
    if isinstance(part, str):
        return ConfidenceRule(general.threshold, ())
    threshold = general.threshold if part.threshold is None else part.threshold
    if part.to is None:
        return replace(general, threshold=threshold)
    # A step that names no threshold has that of `confidence`, which may be a calibration's.
    return ConfidenceRule(
        threshold, _usable(step_names(part.to), backends), {**general.step_thresholds, **own_thresholds(part.to)}
    )


def _forbidden(names: Iterable[str], backends: Iterable[Backend]) -> Iterator[str]:
    candidates = tuple(backends)
    for name in names:
        if name in (CLOUD, LOCAL):
            yield from (backend.name for backend in candidates if backend.local == (name == LOCAL))
        else:
            yield name


def conditions(part: WhenPart) -> Conditions:
    """Return the conditions of a `when`."""
    days: frozenset[str] = frozenset(part.days or DAYS)
    hours = part.hours or (("00:00-24:00",) if part.days else ())
    return Conditions(
        models=frozenset(part.alias),
        endpoints=frozenset(part.endpoint),
        tasks=frozenset(part.task),
        languages=frozenset(part.language),
        tiers=frozenset(part.tier),
        keys=frozenset(part.key),
        needs=frozenset(part.needs),
        complexity=_span(part.complexity),
        prompt_tokens=_span(part.prompt_tokens),
        private=part.private,
        hours=tuple(Hours(*minutes(text), days) for text in hours),
        budget_left_below=part.budget_left_below,
        waiting=_span(part.waiting),
        gpu_busy_above=part.gpu_utilisation_above,
        arms=frozenset(part.experiment),
        confidence_below=part.confidence_below,
    )


def _span(part: RangePart | None) -> Span | None:
    return None if part is None else Span(part.at_least, part.at_most)


def _local_steps(where: str, part: EffectsPart, backends: Mapping[str, Backend]) -> Iterator[ConfigProblem]:
    if isinstance(part.escalate, EscalatePart):
        for i, name in enumerate(step_names(part.escalate.to or ())):
            if name in backends and backends[name].local:
                problem = f"{name} is local; an unsure local answer goes to a cloud"
                yield ConfigProblem(f"{where}.escalate.to.{i}", 0, problem)
