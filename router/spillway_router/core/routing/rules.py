"""The rules of the policy: what a request must be like, and what then becomes of its candidates.

Rules are read from top to bottom, and every rule whose conditions all hold applies:

    chain      these backends, in this order, instead of those of the alias; of several rules the first one counts
    prefer     these before the others of the chain; the first one counts
    forbid     none of these, whatever else says so; the rules add up
    escalate   where an unsure local answer goes and what counts as unsure; the first one counts

The arms of experiments (experiments.py) are rules too, before all others. A request is in the first experiment whose
conditions hold, and there in one arm.

A rule can't bring back what a rule, a key, a mark of privacy or a budget forbids: the filters come after it. `chain`
and `prefer` concern requests for an alias only, because who names a backend has chosen; `forbid` concerns all.

Pure: what changes without the request (the time, load, money left) is given as a `Moment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from datetime import UTC, datetime, tzinfo

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.experiments import CONTROL, EXPERIMENT, Arm
from spillway_router.core.routing.model import Capability, Endpoint, RequestFacts
from spillway_router.core.routing.ordering import split_suffix
from spillway_router.core.routing.policy import ConfidenceRule, Forbidden, Policy, Ruling

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_PER_DAY = 24 * 60


@fast_frozen(frozen=True, slots=True)
class Span:
    """A range of whole numbers, both ends in it; None: no end."""

    at_least: int | None = None
    at_most: int | None = None

    def holds(self, value: int) -> bool:
        """Return whether the value lies in the range."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@fast_frozen(frozen=True, slots=True)
class Hours:
    """A time of day, in minutes since midnight of a time zone. It may pass midnight; its end is not in it."""

    begins: int
    ends: int
    days: frozenset[str] = frozenset(DAYS)
    """The days on which it begins."""

    def holds(self, local: datetime) -> bool:
        """Return whether a moment lies in it."""
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if self.begins < self.ends:
            return self.begins <= minute < self.ends and DAYS[today] in self.days
        if minute >= self.begins:
            return DAYS[today] in self.days
        return minute < self.ends and DAYS[today - 1] in self.days


@fast_frozen(frozen=True, slots=True)
class Conditions:
    """What a request must be like; an empty set and None hold for every request."""

    models: frozenset[str] = frozenset()
    """Names that requests ask for: aliases, usually."""
    endpoints: frozenset[Endpoint] = frozenset()
    tasks: frozenset[str] = frozenset()
    languages: frozenset[str] = frozenset()
    tiers: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    needs: frozenset[Capability] = frozenset()
    """All of these are needed."""
    complexity: Span | None = None
    prompt_tokens: Span | None = None
    """Of the prompt, by its bytes."""
    private: bool | None = None
    hours: tuple[Hours, ...] = ()
    budget_left_below: float | None = None
    """Share that the budget with the least left must be below."""
    waiting: Span | None = None
    """Requests that wait for their first token at the local engine where fewest do."""
    gpu_busy_above: float | None = None
    """Share of time in which the GPU must have been busy for longer."""
    arms: frozenset[str] = frozenset()
    """Arms of experiments, as experiment/arm."""
    confidence_below: float | None = None
    """What the confidence of an answer must be below. Such a rule holds only when a better one is looked for."""

    @property
    def reads_text(self) -> bool:
        """Whether a condition looks at what the request says."""
        return bool(self.tasks or self.languages) or self.complexity is not None

    @property
    def tokens(self) -> tuple[str, ...]:
        """The reason tokens of a choice that was made by these conditions."""
        named = (
            ("complexity", self.complexity is not None),
            ("task", bool(self.tasks)),
            ("tier", bool(self.tiers)),
            ("key", bool(self.keys)),
            ("language", bool(self.languages)),
            ("length", self.prompt_tokens is not None),
            ("time", bool(self.hours)),
            ("budget", self.budget_left_below is not None),
            ("queue", self.waiting is not None),
            ("gpu", self.gpu_busy_above is not None),
            (EXPERIMENT, bool(self.arms)),
            ("confidence", self.confidence_below is not None),
        )
        return tuple([token for token, is_there in named if is_there]) or ("rule",)


@fast_frozen(frozen=True, slots=True)
class Rule:
    """One rule. What it does not change is None or empty."""

    name: str
    when: Conditions
    chain: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    forbid: frozenset[str] = frozenset()
    """Names of backends or of providers."""
    confidence: ConfidenceRule | None = None
    arm: Arm | None = None
    """The arm of an experiment whose rule it is; None for a rule of the policy."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """The reason tokens of a choice that the rule made."""
        return self.when.tokens if self.arm is None else (EXPERIMENT,)


@fast_frozen(frozen=True, slots=True)
class Moment:
    """What rules may know besides the request."""

    wall_s: float
    """Epoch seconds."""
    budget_left: float = 1.0
    """Share that is left of the caller's tightest budget."""
    waiting: int = 0
    """Requests that wait for their first token at the local engine where fewest do."""
    gpu_utilisation: float | None = None
    """Share of time in which the GPU of the least busy engine was busy lately; None if it is not known."""
    confidence: float | None = None
    """Confidence of the answer for which a better one is looked for; None while there is no answer."""


@fast_frozen(frozen=True, slots=True)
class Rules:
    """The rules of a policy, in order, and the time zone of their hours."""

    rules: tuple[Rule, ...] = ()
    timezone: tzinfo = UTC
    # Every request asks for these, so they are known beforehand.
    read_budgets: bool = field(init=False, repr=False, compare=False)
    """Whether any rule looks at what is left of a budget."""
    read_queues: bool = field(init=False, repr=False, compare=False)
    """Whether any rule looks at the queues of the engines."""
    read_gpus: bool = field(init=False, repr=False, compare=False)
    """Whether any rule looks at how busy the GPUs are."""
    read_confidence: bool = field(init=False, repr=False, compare=False)
    """Whether any rule looks at the confidence of an answer."""

    @property
    def reads_text(self) -> bool:
        """Whether any rule looks at what the request says."""
        return any(rule.when.reads_text for rule in self.rules)

    def __post_init__(self) -> None:
        conditions = [rule.when for rule in self.rules]
        for name, value in (
            ("read_budgets", any(when.budget_left_below is not None for when in conditions)),
            ("read_queues", any(when.waiting is not None for when in conditions)),
            ("read_gpus", any(when.gpu_busy_above is not None for when in conditions)),
            ("read_confidence", any(when.confidence_below is not None for when in conditions)),
        ):
            object.__setattr__(self, name, value)

    def matching(self, facts: RequestFacts, moment: Moment) -> tuple[int, ...]:
        """Return the places of the rules that apply to a request now."""
        places: list[int] = []
        answered_in = ""
        for place, rule in enumerate(self.rules):
            arm = rule.arm
            if arm is not None and answered_in:
                continue
            if rule.when.arms and answered_in not in rule.when.arms:
                continue
            # What a rule forbids to an alias it forbids on the way over `models`, too.
            alternatives = arm is None and bool(rule.forbid)
            if not _holds(rule.when, facts, moment, self.timezone, alternatives=alternatives):
                continue
            if arm is None or arm.takes(facts):
                places.append(place)
                answered_in = answered_in if arm is None else arm.answered_title
        return tuple(places)


def _holds(when: Conditions, facts: RequestFacts, moment: Moment, timezone: tzinfo, *, alternatives: bool) -> bool:
    caller, traits = facts.caller, facts.traits
    if (
        (when.models and not _asks_for(facts, when.models, alternatives=alternatives))
        or (when.endpoints and facts.endpoint not in when.endpoints)
        or (when.tiers and caller.tier not in when.tiers)
        or (when.keys and caller.key_id not in when.keys)
        or not when.needs <= facts.needs
        or (when.private is not None and when.private == (facts.privacy.may_leave and not caller.local_only))
    ):
        return False
    if when.tasks and (facts.task or (traits.task if traits is not None else "")) not in when.tasks:
        return False
    if when.languages and (traits is None or traits.language not in when.languages):
        return False
    if when.complexity is not None and (traits is None or not when.complexity.holds(traits.complexity)):
        return False
    if when.prompt_tokens is not None and not when.prompt_tokens.holds(facts.prompt_bytes // BYTES_PER_TOKEN):
        return False
    if when.budget_left_below is not None and moment.budget_left >= when.budget_left_below:
        return False
    if when.waiting is not None and not when.waiting.holds(moment.waiting):
        return False
    if when.gpu_busy_above is not None and (moment.gpu_utilisation or 0.0) <= when.gpu_busy_above:
        return False
    if when.confidence_below is not None and (moment.confidence is None or moment.confidence >= when.confidence_below):
        return False
    if when.hours:
        local = datetime.fromtimestamp(moment.wall_s, timezone)
        return any(hours.holds(local) for hours in when.hours)
    return True


BYTES_PER_TOKEN = 4
"""Bytes of English text per token, about; the length of a rule is a rough one."""


def _asks_for(facts: RequestFacts, models: frozenset[str], *, alternatives: bool) -> bool:
    """Return whether a request asks for one of the models, first of all or, with `alternatives`, among others."""
    if split_suffix(facts.model)[0] in models:
        return True
    others = facts.preferences.models
    return bool(others) and alternatives and any(split_suffix(name)[0] in models for name in others)


def ruled(policy: Policy, rules: Rules, places: Sequence[int], *, in_shadow: bool = False) -> Policy:
    """Return the policy as the rules at these places make it. It forbids all that `policy` forbids.

    The arm of a shadow changes nothing of how a request is answered; with `in_shadow` the policy is that of the shadow.
    """
    chosen = [rules.rules[place] for place in places]
    if not chosen:
        return policy
    trying = next((rule for rule in chosen if rule.arm is not None), None)
    if not in_shadow:
        chosen = [_as_answered(rule) for rule in chosen]
    chain = next((rule for rule in chosen if rule.chain), None)
    prefer = next((rule for rule in chosen if rule.prefer), None)
    confidence = next((rule for rule in chosen if rule.confidence is not None), None)
    tokens = dict.fromkeys(token for rule in (chain, prefer) if rule is not None for token in rule.tokens)
    aliases = dict(policy.aliases)
    if chain is not None:
        aliases = dict.fromkeys(aliases, chain.chain)
    if prefer is not None:
        rank = {name: place for place, name in enumerate(prefer.prefer)}
        aliases = {
            alias: tuple(sorted(names, key=lambda name: rank.get(name, len(rank)))) for alias, names in aliases.items()
        }
    return replace(
        policy,
        aliases=aliases,
        confidence=policy.confidence if confidence is None else confidence.confidence or policy.confidence,
        ruling=Ruling(
            rules=tuple(dict.fromkeys([rule.name for rule in chosen])),  # the configuration may make several of one
            tokens=tuple(tokens),
            prefer=() if prefer is None else prefer.prefer,
            forbidden=tuple([Forbidden(rule.name, rule.forbid) for rule in chosen if rule.forbid]),
            sets_confidence=confidence is not None,
            arm=None if trying is None else trying.arm,
            arm_chooses=trying is not None
            and (in_shadow or not _is_shadow(trying))
            and bool(trying.chain or trying.prefer or trying.forbid),
        ),
    )


def _is_shadow(rule: Rule) -> bool:
    return rule.arm is not None and bool(rule.arm.shadow)


def _as_answered(rule: Rule) -> Rule:
    """Return the rule by which a request of an arm is answered: of a shadow that of the control."""
    return Rule(f"{rule.arm.experiment}/{CONTROL}", rule.when) if rule.arm is not None and rule.arm.shadow else rule
