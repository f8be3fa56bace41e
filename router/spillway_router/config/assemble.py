"""Derives from Settings what the hot path works with: backends, policy and routes. Reports every problem at once."""

from __future__ import annotations

import hashlib
import math
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from spillway_router.config.any_model import any_model
from spillway_router.config.caching import cache_problems, semantic_rules
from spillway_router.config.confidence import scoring_rules, served_models, threshold
from spillway_router.config.discovery import with_engines
from spillway_router.config.embedding_spaces import alias_spaces, space_problems, space_warnings
from spillway_router.config.escalation import (
    referee_warnings,
    step_calibrations,
    step_problems,
    step_thresholds,
    step_warnings,
)
from spillway_router.config.experiments import arm_rules, experiment_backends
from spillway_router.config.load import ConfigError, ConfigProblem, ConfigRejected, Findings, Loaded, located, unset
from spillway_router.config.memory_limit import memory_left
from spillway_router.config.morning import morning_problems
from spillway_router.config.places import is_inside, place_of
from spillway_router.config.policy_part import step_names
from spillway_router.config.rules import (
    idle_conditions,
    idle_confidences,
    learned_complexity,
    named_backends,
    policy_rules,
    unknown_arms,
)
from spillway_router.config.setting_faults import close_name
from spillway_router.config.settings import ALL_CLOUDS, BackendPart, LimitsPart, PricePart, Settings
from spillway_router.config.telemetry import telemetry_problems
from spillway_router.config.tls import tls_problems
from spillway_router.config.weights import weight_experiments
from spillway_router.core.caching.rules import SemanticRules
from spillway_router.core.money.alternatives import Offer
from spillway_router.core.money.bounds import ItemRule, ItemRules, UnboundedModel
from spillway_router.core.money.degrade import DegradeStep, DegradeSteps, steps_of
from spillway_router.core.money.tariff import Tariff, TariffError
from spillway_router.core.redaction import Redactor
from spillway_router.core.routing.backlog import EngineRates, Slo
from spillway_router.core.routing.model import ANY_MODEL, Backend, Capability, Endpoint
from spillway_router.core.routing.policy import AnyModel, ConfidenceRule, Policy
from spillway_router.core.routing.rules import Rules
from spillway_router.core.routing.traits.learned import LearnedComplexity
from spillway_router.http_client.dial import MayDial
from spillway_router.http_client.pool import Pool, PoolLimits
from spillway_router.http_client.types import Target
from spillway_router.prices import book as prices
from spillway_router.prices.rows import ModelRecord, PriceError
from spillway_router.prices.status import PriceStatus, price_status
from spillway_router.providers.bounded import BoundedProvider, bounded_lists
from spillway_router.providers.catalogue import load_catalogue, provider_for, target
from spillway_router.providers.interface import CatalogueEntry, ProviderError
from spillway_router.proxy.client.replies import naming_headers
from spillway_router.proxy.exchange.active_config import BackendRoute, DrainLimits, Limits, ScoringRules, Silence

CLOUD_KEEPALIVE_S = 30.0
SHORTEST_SECRET = 8
"""Characters of a header's value from which on it is hidden in messages; a shorter one would hide ordinary words."""
_MEMORY_PER_BODY = 6
"""Bytes of memory that a request may take for each byte of its body, with room to spare (about 4 were measured)."""
_MOST_BODIES_BYTES = 4096 * 1024 * 1024
_NO_PRICE = (
    "has no known price for {!r}; add price: {{input_per_million, output_per_million}}, or take in a price list with "
    "`spillway prices update FILE`"
)


@dataclass(frozen=True, slots=True)
class BackendTarget:
    """A backend with what is needed to reach it."""

    backend: Backend
    entry: CatalogueEntry
    target: Target
    base_url: str
    own_headers: frozenset[str] = frozenset()
    """Lowercase names of the headers that the configuration adds to every call."""
    silence: Silence = Silence()
    """The longest silence of its streams."""
    offer: Offer | None = None
    """Its prices over time, for comparisons; None for a local backend."""
    own_host: bool = False
    """Whether the configuration says that it is the operator's own machine, although at a public address."""

    @property
    def is_on_this_machine(self) -> bool:
        """Whether it runs on the router's machine, as far as its address tells."""
        host = self.target.host
        return bool(self.target.uds) or host in ("localhost", "::1") or host.startswith("127.")

    @property
    def may_dial(self) -> MayDial | None:
        """What judges the addresses at which it is dialled; None if any will do."""
        return is_inside if self.backend.local and not self.own_host else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of headers that may be secret: those of the key and of the configuration."""
        public = {(name.encode(), value.encode()) for name, value in self.entry.extra_headers}
        values = (v.decode("latin-1").removeprefix("Bearer ") for n, v in self.target.headers if (n, v) not in public)
        return tuple(value for value in values if len(value) >= SHORTEST_SECRET)


@dataclass(frozen=True, slots=True)
class _PricedModel:
    """A model's price of today, whether it may be relied on, and all its prices with their first days, oldest first."""

    tariff: Tariff | None
    price_status: PriceStatus
    prices: tuple[tuple[date, Tariff], ...]


@dataclass(frozen=True, slots=True)
class Assembly:
    """The backends, the policy and the scoring of local answers that follow from Settings.

    `disabled` names the backends that are left out, each with the reason; they are no errors. `warnings` names what
    works but needs attention, such as a stale price.
    """

    policy: Policy
    targets: Mapping[str, BackendTarget]
    rates: Mapping[str, EngineRates]
    disabled: tuple[ConfigProblem, ...]
    warnings: tuple[ConfigProblem, ...] = ()
    scoring: ScoringRules = field(default_factory=ScoringRules)
    rules: Rules = Rules()
    semantic: SemanticRules | None = None
    """When similar questions get a stored answer; None if they never do."""
    learned_complexity: LearnedComplexity | None = None
    """What says the complexity of requests in place of the sum of weights."""

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The backends in the order of the file."""
        return tuple(target.backend for target in self.targets.values())

    @property
    def offers(self) -> Mapping[str, Offer]:
        """The prices of the paid backends over time, by name."""
        return {name: target.offer for name, target in self.targets.items() if target.offer is not None}


def assembly_of(loaded: Loaded, today: date) -> Assembly:
    """Return the Assembly of a configuration with the prices of a UTC day. Raises ConfigError with every problem."""
    assembly = assemble(loaded.settings, loaded.environment, today)
    if isinstance(assembly, ConfigRejected):
        raise ConfigError([located(loaded.text, problem) for problem in assembly.problems])
    return assembly


def problems_of(error: ConfigError, environment: Mapping[str, str], today: date) -> tuple[ConfigProblem, ...]:
    """Return every problem of a configuration that can't be read: those of the error, and those that its backends
    would have if the rest were right, so that all of them are mended in one round."""
    remainder = error.remainder
    outcome = None if remainder is None else assemble(remainder.settings, environment, today)
    if remainder is None or not isinstance(outcome, ConfigRejected):
        return error.problems
    sound = {f"backends.{part.name}" for part in remainder.settings.backends if part.name not in remainder.damaged}
    further = [located(remainder.text, problem) for problem in outcome.problems if problem.where in sound]
    return tuple(sorted((*error.problems, *further), key=lambda problem: problem.line))


def assemble(settings: Settings, environment: Mapping[str, str], today: date) -> Assembly | ConfigRejected:
    """Return the Assembly, or every problem that prevents it. A provider without its key is only disabled."""
    findings, catalogue = Findings(), load_catalogue()
    try:
        settings = with_engines(settings, {})  # those that a router has found are in its settings already
    except ConfigError as error:
        return ConfigRejected(error.problems)
    backends = _Backends(settings, environment, today, findings)
    targets = backends.targets()
    local = {name: target.backend for name, target in targets.items() if target.backend.local}
    scoring = scoring_rules(settings.confidence, served_models(settings.backends, local), findings)
    findings.problems.extend(_check_degrade(settings, targets))
    findings.problems.extend(tls_problems(settings.tls))
    findings.problems.extend(cache_problems(settings.cache))
    findings.problems.extend(telemetry_problems(settings.telemetry))
    findings.problems.extend(morning_problems(settings))
    usable = {name: target.backend for name, target in targets.items()}
    semantic = semantic_rules(settings.cache, usable, findings)
    findings.warnings.extend(_check_pacing(settings))
    findings.warnings.extend(_check_stop(settings.limits))
    backends.check_references()
    scoring = replace(scoring, step_calibrations=step_calibrations(settings.confidence, findings))
    policy = _policy(settings, targets, scoring, backends)
    findings.problems.extend(step_problems(settings.confidence, policy, scoring.step_calibrations))
    rules = policy_rules(settings.policy, policy.backends, policy.confidence, findings)
    findings.problems.extend(unknown_arms(settings.policy, settings.experiments))
    findings.warnings.extend(idle_conditions(settings.policy, policy))
    findings.problems.extend(idle_confidences(settings.policy, policy.confidence))
    experiments = (*settings.experiments, *weight_experiments(settings.aliases))
    rules = replace(rules, rules=(*arm_rules(experiments, policy, findings), *rules.rules))
    learned = learned_complexity(settings.policy, findings)
    findings.warnings.extend(step_warnings(policy, rules, refereed=scoring.referee is not None))
    findings.warnings.extend(referee_warnings(settings.confidence, policy))
    policy = replace(policy, spaces=alias_spaces(policy, rules))
    explicit = {alias: part.chain for alias, part in settings.aliases.items()}
    findings.problems.extend(space_problems(policy, rules, explicit))
    findings.warnings.extend(space_warnings(policy, explicit))
    if findings.problems:
        return ConfigRejected(tuple(findings.problems))
    return Assembly(
        policy=policy,
        targets=targets,
        rates={part.name: _rates(part, catalogue.get(part.provider)) for part in settings.backends},
        disabled=tuple(findings.disabled),
        warnings=tuple(findings.warnings),
        scoring=scoring,
        rules=rules,
        semantic=semantic,
        learned_complexity=learned,
    )


class _Backends:
    """Derives the backends of a configuration, and adds what is wrong with each to `findings`."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], today: date, findings: Findings) -> None:
        self._settings = settings
        self._environment = environment
        self._today = today
        self._findings = findings
        self._catalogue = load_catalogue()
        self._book = self._price_book()
        self._degrade_steps = _degrade_steps(settings, self._catalogue)
        self.any_model: dict[str, AnyModel] = {}
        """The models of each backend that serves any of its provider's."""
        self.referenced: dict[str, Backend] = {}
        """The models of such backends that the configuration names, as NAME/MODEL."""

    def targets(self) -> dict[str, BackendTarget]:
        """Return the usable backends by name, in the order of the file."""
        targets = {part.name: self._target(part) for part in self._settings.backends}
        return {name: target for name, target in targets.items() if target is not None}

    def check_references(self) -> None:
        """Derive the models that the configuration names of backends of any model; add what is wrong with them."""
        documents, confidence = self._settings.documents, self._settings.confidence
        aliases = ((f"aliases.{alias}.chain", chain) for alias, chain in self._settings.chains().items())
        lists = (
            *aliases,
            ("confidence.escalate_to", step_names(confidence.escalate_to)),
            ("confidence.referee.backend", (confidence.referee.backend,)),
            ("documents.external", documents.external),
            *named_backends(self._settings.policy),
            *experiment_backends(self._settings.experiments),
        )
        for where, names in lists:
            for name in names:
                backend_name, _, model = name.partition("/")
                if not model or backend_name not in self.any_model or name in self.referenced:
                    continue
                backend = self.any_model[backend_name].lookup(model)
                if isinstance(backend, str):
                    self._findings.problems.append(ConfigProblem(where, 0, backend))
                    continue
                self.referenced[name] = backend
                record = self._book.record(backend.provider, model)
                if record is not None:
                    status = price_status(record, self._today, self._settings.prices.stale_after_days)
                    self._findings.warnings.extend(ConfigProblem(where, 0, f"{name}: {w}") for w in status.warnings)

    def _price_book(self) -> prices.PriceBook:
        providers = {part.provider for part in self._settings.backends}
        try:
            return prices.book(self._settings.price_file, providers)
        except PriceError as error:
            self._findings.problems.append(ConfigProblem("prices.file", 0, str(error)))
            return prices.book(providers=providers)

    def _target(self, part: BackendPart) -> BackendTarget | None:
        """Return one backend; None if it is disabled or wrong, which is then in the findings."""
        where = f"backends.{part.name}"
        entry = self._catalogue.get(part.provider)
        if entry is None:
            names = ", ".join(sorted(self._catalogue))
            meant = close_name(part.provider, self._catalogue)
            problem = f"provider {part.provider!r} is not known; use one of {names}"
            problem += f"; did you mean {meant}?" if meant else ""
            self._findings.problems.append(ConfigProblem(where, 0, problem))
            return None
        missing_key = self._missing_key(part, entry)
        if missing_key:
            self._findings.disabled.append(ConfigProblem(where, 0, f"is disabled: {missing_key}"))
            return None
        local = _is_local(part, entry)
        place = place_of(part, entry, self._catalogue, local=local)
        if place.problem:
            self._findings.problems.append(ConfigProblem(where, 0, place.problem))
            return None
        if place.warning:
            self._findings.warnings.append(ConfigProblem(where, 0, place.warning))
        if problem := _endpoint_problem(part, entry):
            self._findings.problems.append(ConfigProblem(where, 0, problem))
            return None
        try:
            key = self._key(part, entry)
            reach = target(entry, part.base_url, key or None, part.headers)
            record = self._book.record(part.provider, part.model)
            priced = None if local else self._priced(part, record, reach.host)
            unused_price = local and part.price is not None and not part.price.tariff().free
        except (ProviderError, TariffError) as error:
            self._findings.problems.append(ConfigProblem(where, 0, str(error)))
            return None
        if part.model == ANY_MODEL:
            if not self._add_any_model(where, part, entry, reach.host):
                return None
        elif not local and not self._check_price(where, part, priced):
            return None
        if unused_price:
            warning = (
                "is local, so its requests cost 0 and its `price` is not used. Set gpu.price_per_hour for rented GPUs; "
                "if somebody bills its requests, set `local: false`"
            )
            self._findings.warnings.append(ConfigProblem(where, 0, warning))
        tariff = None if priced is None else priced.tariff
        backend = self._backend(part, entry, record, tariff, reach.host)
        if backend.unbounded_model is not None and not backend.holds_unbounded and self._settings.budgets:
            warning = (
                f"{backend.unbounded_model.reason}, so budgets refuse all of them; set "
                f"backends[{part.name}].{backend.unbounded_model.settings} to permit them"
            )
            self._findings.warnings.append(ConfigProblem(where, 0, warning))
        own_headers = frozenset(name.lower() for name in part.headers)
        return BackendTarget(
            backend=backend,
            entry=entry,
            target=reach,
            base_url=part.base_url or entry.base_url,
            own_headers=own_headers,
            silence=self._silence(part, entry),
            offer=None if priced is None else _offer(priced, backend.context_tokens),
            own_host=bool(part.own_host),
        )

    def _backend(
        self, part: BackendPart, entry: CatalogueEntry, record: ModelRecord | None, tariff: Tariff | None, host: str
    ) -> Backend:
        backend = _backend(part, entry, record, tariff, math.ceil(self._settings.limits.answer_s))
        return replace(
            backend,
            unbounded_model=_unbounded_model(part, tariff, host),
            degrade_steps=steps_of(backend.name, self._degrade_steps),
            one_of_many=part.model == ANY_MODEL,
        )

    def _add_any_model(self, where: str, part: BackendPart, entry: CatalogueEntry, host: str) -> bool:
        """Add the models of a backend that serves any of its provider's; return whether it can."""
        problem = ""
        if _is_local(part, entry):
            problem = 'is local, and an engine serves the models it was started with: name one instead of "*"'
        elif part.price is not None:
            problem = 'has one price for every model; remove `price:`, or name the model instead of "*"'
        elif not self._book.of_provider(part.provider):
            problem = (
                f"serves any model of {part.provider}, and no price of that provider is known: name a model and add a "
                "`price:`, or take in a price list with `spillway prices update FILE`"
            )
        if problem:
            self._findings.problems.append(ConfigProblem(where, 0, problem))
            return False

        today, stale_after_days = self._today, self._settings.prices.stale_after_days
        steps, answer_s = steps_of(part.name, self._degrade_steps), math.ceil(self._settings.limits.answer_s)

        def serve(model: str, record: ModelRecord) -> Backend | str:
            one = part.model_copy(update={"model": model})
            priced = _priced(one, record, host, today, stale_after_days)
            if priced is None or priced.tariff is None or priced.price_status.off:
                reason = "its price is not known" if priced is None else priced.price_status.off
                return f"{part.name}/{model} can't be used: {reason}."
            backend = _backend(one, entry, record, priced.tariff, answer_s)
            unbounded = _unbounded_model(one, priced.tariff, host)
            return replace(backend, unbounded_model=unbounded, degrade_steps=steps, one_of_many=True)

        self.any_model[part.name] = any_model(part.name, part.provider, self._book, today, serve)
        return True

    def _silence(self, part: BackendPart, entry: CatalogueEntry) -> Silence:
        """Return the longest silence of the backend's streams. What the file sets counts before the catalogue."""
        if part.stall_s is not None:
            return Silence(part.stall_s)
        if "stall_s" in self._settings.limits.model_fields_set:
            return Silence()
        return Silence(entry.stall_s, entry.tool_stall_s)

    def _missing_key(self, part: BackendPart, entry: CatalogueEntry) -> str:
        """Return what is missing of the provider's key and how to set it; "" if nothing is."""
        variable = unset(part.api_key, self._environment)
        if variable:
            return f"${{{variable}}} is not set; export {variable}"
        try:
            key = self._key(part, entry)
        except ProviderError as error:
            return str(error)
        if not key and entry.key_variable and not (part.local or entry.local):
            return f"export {entry.key_variable}, or set api_key"
        return ""

    def _key(self, part: BackendPart, entry: CatalogueEntry) -> str:
        """Return the provider's key, "" without one. It is read again at each reload, so that a file may be renewed."""
        if part.api_key_file is None:
            return part.api_key or self._environment.get(entry.key_variable, "")
        if part.api_key:
            raise ProviderError("has both api_key and api_key_file; keep one")
        try:
            return part.api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ProviderError(f"can't read api_key_file {part.api_key_file}: {reason}") from None

    def _priced(self, part: BackendPart, record: ModelRecord | None, host: str) -> _PricedModel | None:
        return _priced(part, record, host, self._today, self._settings.prices.stale_after_days)

    def _check_price(self, where: str, part: BackendPart, priced: _PricedModel | None) -> bool:
        """Return whether the price allows the backend to be used; add what there is to say to the findings."""
        if priced is None:
            self._findings.problems.append(ConfigProblem(where, 0, _NO_PRICE.format(part.model)))
            return False
        status = priced.price_status
        self._findings.warnings.extend(ConfigProblem(where, 0, warning) for warning in status.warnings)
        if status.off:
            self._findings.disabled.append(ConfigProblem(where, 0, f"is disabled: {status.off}"))
        return not status.off


def _offer(priced: _PricedModel, context_tokens: int | None) -> Offer:
    prices = tuple((start.isoformat(), tariff) for start, tariff in priced.prices)
    return Offer(prices, context_tokens)


def _priced(
    part: BackendPart, record: ModelRecord | None, host: str, today: date, stale_after_days: int
) -> _PricedModel | None:
    """Return the price of a paid backend and whether it may be relied on; None if no price is known.

    A configured `price:` takes precedence over the price list. The fees of tools come from the lists of bounded fields,
    and so does what a host asks above the prices of the list.
    """
    bounded = _bounded(part)
    if part.price is None:
        if record is None:
            return None
        tariff, factor = record.tariff(today), bounded.factor(host)
        return _PricedModel(
            tariff=None if tariff is None else _with_fees(tariff.times(factor), bounded),
            price_status=price_status(record, today, stale_after_days),
            prices=tuple((start, each.times(factor)) for start, each in record.prices),
        )
    configured = _configured_price(part.price)
    status = price_status(configured, today, stale_after_days)
    if record is not None and record.retired_on is not None and part.price.retired_on is None:
        warning = (
            f"the price list says the provider withdraws the model on {record.retired_on}; its own `price:` is used"
        )
        status = replace(status, warnings=(*status.warnings, warning))
    tariff = configured.tariff(today)
    return _PricedModel(
        tariff=None if tariff is None else _with_fees(tariff, bounded),
        price_status=status,
        prices=configured.prices,
    )


def _bounded(part: BackendPart) -> BoundedProvider:
    return bounded_lists().providers.get(part.provider, BoundedProvider())


def _with_fees(tariff: Tariff, bounded: BoundedProvider) -> Tariff:
    """Return the tariff with the provider's fees that it does not state itself."""
    listed = {name: fee.usd for name, fee in bounded.fees.items()}
    return replace(tariff, fees=tuple((listed | dict(tariff.fees)).items()))


def _policy(
    settings: Settings, targets: Mapping[str, BackendTarget], scoring: ScoringRules, derived: _Backends
) -> Policy:
    backends = {name: target.backend for name, target in targets.items()} | derived.referenced
    busy = settings.overflow.gpu_utilisation
    chains = {alias: tuple(n for n in chain if n in backends) for alias, chain in settings.chains().items()}
    return Policy(
        version=_version(settings),
        backends=backends,
        aliases={alias: chain for alias, chain in chains.items() if chain},
        slo=Slo(settings.slo.ttft_ms / 1000, settings.slo.tpot_ms / 1000),
        gpu_busy_above=None if busy is None else busy.above,
        confidence=ConfidenceRule(
            threshold(settings.confidence, scoring.calibration),
            tuple(n for n in step_names(settings.confidence.escalate_to) if n in backends),
            step_thresholds(settings.confidence.escalate_to, scoring.step_calibrations),
        ),
        any_model=derived.any_model,
    )


def _backend(
    part: BackendPart, entry: CatalogueEntry, record: ModelRecord | None, tariff: Tariff | None, answer_s: int
) -> Backend:
    max_output_tokens, model_bounds_output = part.max_output_tokens, False
    if record is not None and record.max_output_tokens is not None:
        # The hold of a paid model must cover the longest output that the model can give, unless the file sets a limit.
        use_record = tariff is not None and "max_output_tokens" not in part.model_fields_set
        model_bounds_output = use_record or max_output_tokens >= record.max_output_tokens
        max_output_tokens = record.max_output_tokens if use_record else min(max_output_tokens, record.max_output_tokens)
    bounded = _bounded(part)
    retired_on = part.price.retired_on if part.price is not None else None if record is None else record.retired_on
    return Backend(
        name=part.name,
        provider=part.provider,
        model=part.model,
        local=_is_local(part, entry),
        endpoints=frozenset(part.endpoints or entry.endpoints),
        capabilities=_capabilities(entry, record),
        tariff=tariff,
        context_tokens=part.context_tokens or (record.context_tokens if record is not None else None),
        max_output_tokens=max_output_tokens,
        collects_data=entry.collects_data,
        zero_retention=part.zero_data_retention,
        knows_preferences="provider" not in entry.drops_fields,
        drops_fields=entry.drops_fields | entry.withheld_fields,
        on_disconnect=part.on_disconnect or entry.on_disconnect,
        on_disconnect_whole=part.on_disconnect or entry.on_disconnect_whole,
        drains=part.drain and entry.tells_usage and tariff is not None and tariff.by_tokens,
        longest_s=answer_s,
        item_rules=_item_rules(entry, bounded),
        holds_unbounded=part.unbounded == "hold",
        default_modes=bounded.default_modes,
        usual_service=bounded.usual_service if tariff is not None and tariff.knows("priority") else "",
        output_is_bounded=model_bounds_output,
        output_fields=bounded.output_fields(part.output_bound_field),
        output_field_unsure=bounded.output_field_unsure,
        sends_max_price=entry.sends_max_price,
        retired_on="" if retired_on is None else retired_on.isoformat(),
        successor="" if record is None else record.successor,
        embedding_space=_embedding_space(part, entry),
        embeds=_embeds(part, tariff),
        max_inputs=part.max_inputs or entry.max_inputs,
        hides_too_long=entry.hides_too_long,
    )


def _unbounded_model(part: BackendPart, tariff: Tariff | None, host: str) -> UnboundedModel | None:
    """Return why the cost of a request to the backend's model is not bounded, whatever it contains; None if it is."""
    if tariff is None or tariff.free:
        return None
    fee_stated = part.price is not None and "per_request" in part.price.model_fields_set
    return _bounded(part).unbounded_model(
        part.model,
        host,
        fee_known=fee_stated or tariff.per_request > 0,
        field_known=part.output_bound_field is not None,
    )


def _embedding_space(part: BackendPart, entry: CatalogueEntry) -> str:
    """Return the name of the space of the backend's vectors; "" for that of its provider and model."""
    if part.embedding_space or entry.base_url or part.base_url is None:
        return part.embedding_space
    # Nobody knows whether servers at two addresses mean the same model by one name, unless the provider says so.
    return f"{part.provider}/{part.model} at {part.base_url}"


def _embeds(part: BackendPart, tariff: Tariff | None) -> bool:
    """Return whether the backend is known to serve embeddings."""
    if part.embedding_space or part.endpoints == ("embeddings",):
        return True
    return tariff is not None and tariff.input_per_million > 0 and not tariff.output_per_million + tariff.per_request


def _endpoint_problem(part: BackendPart, entry: CatalogueEntry) -> str:
    """Return what is wrong with the endpoints and the embedding space that the file gives to a backend."""
    more = sorted(set(part.endpoints or ()) - entry.endpoints)
    if more:
        return (
            f"{part.provider} does not serve {', '.join(more)}; its endpoints are {', '.join(sorted(entry.endpoints))}"
        )
    if part.embedding_space and part.model == ANY_MODEL:
        return "serves any model, and each has an embedding space of its own: name a model, or remove `embedding_space`"
    return ""


def _item_rules(entry: CatalogueEntry, bounded: BoundedProvider) -> Mapping[Endpoint, ItemRules]:
    """Return the items whose cost is bounded, by endpoint. A field that is not sent costs nothing."""
    dropped = dict.fromkeys(entry.drops_fields, ItemRule())
    return {endpoint: {**bounded.rules.get(endpoint, {}), **dropped} for endpoint in entry.endpoints}


def _capabilities(entry: CatalogueEntry, record: ModelRecord | None) -> frozenset[Capability]:
    """Return what the provider's API can do, without what the price list says that the model can't."""
    if record is None:
        return entry.capabilities
    return entry.capabilities - {name for name, able in record.capabilities.items() if not able}


def _is_local(part: BackendPart, entry: CatalogueEntry) -> bool:
    return entry.local if part.local is None else part.local


def _configured_price(price: PricePart) -> ModelRecord:
    """Return a configured price in the shape of a price list's record."""
    return ModelRecord(
        prices=((price.valid_from or date.min, price.tariff()),),
        context_tokens=None,
        max_output_tokens=None,
        retired_on=price.retired_on,
        checked_on=price.checked_on or price.valid_from,
    )


def _degrade_steps(settings: Settings, catalogue: Mapping[str, CatalogueEntry]) -> DegradeSteps:
    """Return the degrade steps of all budgets; the word `cloud` stands for all backends that are not local."""
    clouds = frozenset(
        part.name
        for part in settings.backends
        if (entry := catalogue.get(part.provider)) is not None and not _is_local(part, entry)
    )
    return tuple(
        DegradeStep(cap.scope, cap.period, float(rule.at), clouds if rule.drop == ALL_CLOUDS else frozenset(rule.drop))
        for cap in settings.budgets
        for rule in cap.degrade
    )


def _check_stop(limits: LimitsPart) -> Iterator[ConfigProblem]:
    """Warn of whole answers that were given more time than a stop leaves them."""
    if "answer_s" in limits.model_fields_set and limits.answer_s > limits.stop_s:
        yield ConfigProblem(
            "limits.stop_s",
            0,
            f"whole answers may take {limits.answer_s:g} s, and a stop cuts them off after {limits.stop_s:g} s; raise "
            "limits.stop_s, and the time that whatever stops the router waits by as much",
        )


def _check_pacing(settings: Settings) -> Iterator[ConfigProblem]:
    """Yield a problem for every paced budget if nothing is escalated, because then there is nothing to pace."""
    if settings.confidence.escalate_to:
        return
    problem = "paces escalations, but confidence.escalate_to names no backend; add one, or remove pacing"
    for i, cap in enumerate(settings.budgets):
        if cap.pacing:
            yield ConfigProblem(f"budgets.{i}.pacing", 0, problem)


def _check_degrade(settings: Settings, targets: Mapping[str, BackendTarget]) -> Iterator[ConfigProblem]:
    """Yield a problem for every degrade step that drops a local backend, because that saves no money."""
    for i, cap in enumerate(settings.budgets):
        for j, rule in enumerate(cap.degrade):
            for name in () if rule.drop == ALL_CLOUDS else rule.drop:
                if name in targets and targets[name].backend.local:
                    problem = f"{name} is local and its requests cost nothing; remove it from `drop`"
                    yield ConfigProblem(f"budgets.{i}.degrade.{j}", 0, problem)


def _rates(part: BackendPart, entry: CatalogueEntry | None) -> EngineRates:
    rates = EngineRates()
    if part.prefill_tokens_per_s is not None:
        rates = replace(rates, prefill_tokens_per_s=part.prefill_tokens_per_s)
    sequences = part.max_sequences or (None if entry is None else entry.sequences)
    if sequences is not None:
        rates = replace(rates, max_sequences=sequences)
    return rates


def _version(settings: Settings) -> str:
    """Return a short digest of everything that routing depends on, without the secrets."""
    text = settings.model_dump_json(
        include={"backends", "aliases", "policy", "slo", "overflow", "hedging", "confidence", "privacy", "budgets"},
        exclude={"backends": {"__all__": {"api_key", "headers"}}},
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def backend_routes(
    targets: Mapping[str, BackendTarget], open_pools: Mapping[str, tuple[Target, Pool]]
) -> dict[str, BackendRoute]:
    """Return a route to each backend. A backend whose target has not changed keeps its pool and its connections."""
    tls: ssl.SSLContext | None = None
    redactor = Redactor(secret for reached in targets.values() for secret in reached.secrets)
    routes: dict[str, BackendRoute] = {}
    for name, reached in targets.items():
        backend = reached.backend
        open_target, pool = open_pools.get(name, (None, None))
        may_dial = reached.may_dial
        if pool is None or open_target != reached.target or (pool.local, pool.may_dial) != (backend.local, may_dial):
            if reached.target.scheme == "https" and tls is None:
                tls = ssl.create_default_context()
            limits = PoolLimits() if backend.local else PoolLimits(keepalive_s=CLOUD_KEEPALIVE_S)
            limits = replace(limits, resend=backend.tariff is None and not backend.any_model)
            pool = Pool(reached.target, limits, tls, local=backend.local, may_dial=may_dial)
        routes[name] = BackendRoute(
            backend,
            provider_for(reached.entry),
            pool,
            naming_headers(backend),
            redactor=redactor,
            own_headers=reached.own_headers,
            silence=reached.silence,
        )
    return routes


def local_hosts(targets: Mapping[str, BackendTarget]) -> dict[str, str]:
    """Return the hosts of the local backends that must not be public ones, by the names of the backends."""
    return {
        name: reached.target.host
        for name, reached in targets.items()
        if reached.may_dial is not None and not reached.target.uds
    }


def request_limits(settings: Settings) -> Limits:
    """Return the limits of one request, in bytes and seconds."""
    part = settings.limits
    return Limits(
        body_bytes=int(part.body_mb * 1024 * 1024),
        body_s=part.body_s,
        first_event_s=part.first_event_s,
        answer_s=part.answer_s,
        stall_s=part.stall_s,
        stall_is_set="stall_s" in part.model_fields_set,
        in_flight=part.in_flight,
        bodies_bytes=_bodies_bytes(part),
        drains=DrainLimits(
            count=part.drains,
            most_bytes=int(part.drain_mb * 1024 * 1024),
            within_s=part.drain_s,
            stop_s=part.drain_stop_s,
        ),
        write_stall_s=part.write_stall_s,
        connections_per_address=part.connections_per_address,
    )


def _bodies_bytes(part: LimitsPart) -> int:
    """Return the bytes that all bodies in progress may take."""
    if part.bodies_mb == "auto":
        return min(_MOST_BODIES_BYTES, memory_left() // _MEMORY_PER_BODY)
    return int(part.bodies_mb * 1024 * 1024)
