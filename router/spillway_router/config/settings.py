"""The settings of spillway.yaml as frozen values: names, defaults, units and bounds. load.py reads the file into them.

The docstrings of the classes are the descriptions in the JSON schema (`spillway schema`), so they address users.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AnyHttpUrl,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from spillway_router.config.cache_part import CachePart
from spillway_router.config.experiments_part import ExperimentPart
from spillway_router.config.fleet_part import FleetPart
from spillway_router.config.gpus import GpuName
from spillway_router.config.part import Part, Timezone
from spillway_router.config.policy_part import PolicyPart, Steps
from spillway_router.config.service_name import ServiceName
from spillway_router.core.confidence.calibration import ANY, Fingerprint
from spillway_router.core.confidence.referee import MOST_TOKENS
from spillway_router.core.money.attribution import MOST_HOURLY_USD
from spillway_router.core.money.budget import EACH, BudgetError, BudgetLine, check_scope
from spillway_router.core.money.credits import MOST_CREDITS, Counted, CreditLine
from spillway_router.core.money.currency import Currency
from spillway_router.core.money.tariff import MEDIA, NANO, Rates, Tariff, TariffStep, service_of
from spillway_router.core.routing.experiments import By
from spillway_router.core.routing.hedging import HedgeRule
from spillway_router.core.routing.model import ANY_MODEL, Endpoint
from spillway_router.privacy.detectors import PATTERN_NAMES
from spillway_router.privacy.keywords import keyword_forms
from spillway_router.privacy.word_lists import WORD_LISTS

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_ORIGIN = re.compile(r"^[a-z][a-z0-9+.-]*://[A-Za-z0-9._:\[\]-]+$")
_HTTP_URL = TypeAdapter(AnyHttpUrl)

LONGEST_CONTEXT = 10**8
"""Tokens, many times those of the longest context: at any price, the ledger can hold the cost of so many."""

Money = Annotated[Decimal, Field(ge=0, le=10**9)]


MailAddress = Annotated[str, Field(pattern=r"^[^@\s<>,;\x00-\x1f]+@[^@\s<>,;\x00-\x1f]+$", max_length=254)]


def _complete_url(value: str) -> str:
    try:
        _HTTP_URL.validate_python(value)
    except ValidationError:
        raise ValueError("write a complete URL, such as https://hooks.example.com/spillway") from None
    return value


class ServerPart(Part):
    """The engine that `spillway serve` and `spillway up` launch.

    `loras` maps the names of adapters to their directories. The engine serves them next to the model, and a backend
    reaches one by giving its name as `model`. `force` starts a model that Spillway's own plan would refuse.
    """

    model: str = "auto"
    vllm_args: tuple[str, ...] = ()
    loras: Mapping[str, str] = {}
    force: bool = False


class WorkPart(Part):
    """GPU time per token, in microseconds of one GPU at full load. A value left out comes from the GPU's data sheet.

    `prefill_us` is the time per prompt token that was not cached, `decode_us` the time per output token, and `kv_us`
    the time per token of context that one decode step reads. To measure a value, divide 1,000,000 by the tokens per
    second of the whole engine.
    """

    prefill_us: Annotated[Decimal, Field(ge=0, le=10**6)] | None = None
    decode_us: Annotated[Decimal, Field(ge=0, le=10**6)] | None = None
    kv_us: Annotated[Decimal, Field(ge=0, le=10**6)] | None = None


HOURS_PER_MONTH = 730
"""The 8,760 hours of a year divided by twelve months."""


class GpuPart(Part):
    """The rented GPUs: model, number, and the price of one GPU in USD per hour or per calendar month.

    A GPU of your own has the price 0. `hours_per_month` turns a price per month into one per hour for comparisons.
    Routers that share a ledger and have the same `machine` bill the same GPUs once; by default it is the address of the
    local engine. `watch_minutes` is how often the router asks the providers of rented machines whether they run; 0
    turns it off.
    """

    name: GpuName | None = None
    price_per_hour: Money | None = None
    price_per_month: Money | None = None
    hours_per_month: Annotated[Decimal, Field(gt=0, le=744)] = Decimal(HOURS_PER_MONTH)
    count: int = Field(1, ge=1, le=1024)
    kind: Literal["reserved", "interruptible"] = "reserved"
    machine: str = Field("", max_length=200)
    watch_minutes: float = Field(5, ge=0, le=1440)
    work: WorkPart = WorkPart()

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        if self.price_per_hour is not None and self.price_per_month is not None:
            raise ValueError("give price_per_hour or price_per_month, not both")
        if self.hourly * self.count > MOST_HOURLY_USD:
            raise ValueError(f"all GPUs together cost more than {MOST_HOURLY_USD:,} USD per hour; check the price")
        return self

    @property
    def price_known(self) -> bool:
        """Whether the price of the GPU is configured; 0 is a price, too."""
        return self.price_per_hour is not None or self.price_per_month is not None

    @property
    def hourly(self) -> Decimal:
        """USD per hour of one GPU, for comparisons; 0 if the price is unknown."""
        if self.price_per_month is not None:
            return self.price_per_month / self.hours_per_month
        return self.price_per_hour or Decimal(0)

    @property
    def is_free(self) -> bool:
        """Whether the configuration says that the GPU costs nothing; a price that is unknown says no such thing."""
        return self.price_known and not self.hourly


class FixedCostPart(Part):
    """A fixed cost that is no GPU, such as a database, in USD per calendar month. It counts from the day `since`, else
    from the day on which a router first reads it, until it is taken out here."""

    name: str = Field(pattern=_NAME)
    price_per_month: Annotated[Decimal, Field(ge=0, le=10**7)]
    since: date | None = None


class _RatesPart(Part):
    """Prices in USD per million tokens, as decimal text. Tokens without a price of their own cost as much as the
    tokens that they are a part of."""

    input_per_million: Money
    output_per_million: Money
    cached_input_per_million: Money | None = None
    cache_write_per_million: Money | None = None
    cache_write_long_per_million: Money | None = None
    reasoning_per_million: Money | None = None

    def rates(self) -> Rates:
        """Return the same prices as core's `Rates`, in USD per million tokens."""
        return Rates(
            input=self.input_per_million,
            output=self.output_per_million,
            cached_input=self.cached_input_per_million,
            cache_write=self.cache_write_per_million,
            cache_write_long=self.cache_write_long_per_million,
            reasoning=self.reasoning_per_million,
        )


class StepPart(_RatesPart):
    """Prices that apply to prompts of more than `above_tokens` tokens, or to a service (`service_tier`) of the
    provider."""

    above_tokens: int = Field(0, ge=0, le=LONGEST_CONTEXT)
    service: str = ""


class PricePart(_RatesPart):
    """The prices of a backend in USD per million tokens, per request and per second, as decimal text.

    `fees` are the prices of one use of each of the provider's own tools, such as web_search. They add to the fees that
    Spillway knows, or replace them. The prices of audio and of generated pictures are those of their tokens among the
    prompt and the completion.
    """

    audio_input_per_million: Money | None = None
    audio_output_per_million: Money | None = None
    image_output_per_million: Money | None = None
    per_request: Money = Decimal(0)
    per_second: Money = Decimal(0)
    fees: Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], Money] = {}
    steps: tuple[StepPart, ...] = ()
    valid_from: date | None = None
    valid_until: date | None = None
    checked_on: date | None = None
    retired_on: date | None = None

    def tariff(self) -> Tariff:
        """Return the tariff with these prices. Raises TariffError."""
        rates = self.rates()
        return Tariff(
            input_per_million=rates.input,
            output_per_million=rates.output,
            cached_input_per_million=rates.cached_input,
            per_request=self.per_request,
            valid_from="1970-01-01" if self.valid_from is None else self.valid_from.isoformat(),
            source="config",
            cache_write_per_million=rates.cache_write,
            cache_write_long_per_million=rates.cache_write_long,
            reasoning_per_million=rates.reasoning,
            per_second=self.per_second,
            steps=tuple(TariffStep(step.rates(), step.above_tokens, service_of(step.service)) for step in self.steps),
            valid_until=None if self.valid_until is None else self.valid_until.isoformat(),
            fees=tuple(self.fees.items()),
            media=tuple((name, value) for name in MEDIA if (value := getattr(self, f"{name}_per_million")) is not None),
        )


class PricesPart(Part):
    """The price list and its age limit.

    `file` is the list that `spillway prices update` writes; the default is prices.json next to the ledger. A price is
    reported as stale when nobody has checked it against the provider's page for `stale_after_days` days.
    """

    file: str | None = Field(None, min_length=1)
    stale_after_days: int = Field(90, ge=1, le=3650)


class CurrencyPart(Part):
    """The currency in which reports show amounts to people: its ISO code, what one US dollar is in it, and the day of
    that rate. The ledger, budgets, CSV and JSON stay in US dollars."""

    code: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    per_usd: Annotated[Decimal, Field(gt=0, le=10**6)]
    as_of: date

    def currency(self) -> Currency:
        """Return the same as core's `Currency`."""
        return Currency(self.code, f"{self.per_usd:f}", self.as_of.isoformat())


class MailPart(Part):
    """A mail server and who gets mail through it. `security` says how the connection is protected: `starttls`, `tls`
    from its first byte, or `none`, which is for a server on this machine."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = Field("", repr=False)
    sender: MailAddress
    to: tuple[MailAddress, ...] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _password_is_protected(self) -> Self:
        if self.password and self.security == "none" and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("security: none would send the password in clear; write starttls or tls")
        return self


class MorningPart(Part):
    """A report of the day before, sent once a day at a time of `report.timezone`: to a webhook (`webhook_url`, else the
    one of `alerts`), by mail, or both."""

    at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "07:00"
    webhook: bool = True
    webhook_url: str | None = Field(None, repr=False)
    mail: MailPart | None = None

    @field_validator("webhook_url")
    @classmethod
    def _webhook_url(cls, value: str | None) -> str | None:
        return None if value is None else _complete_url(value)

    @property
    def minute(self) -> int:
        """The minute of the day."""
        return int(self.at[:2]) * 60 + int(self.at[3:])


class ReportPart(Part):
    """How reports are shown: the time zone whose days and months they cover, and the currency. `morning` sends one a
    day.

    Budgets are always in UTC and US dollars.
    """

    timezone: Timezone = "UTC"
    currency: CurrencyPart | None = None
    morning: MorningPart | None = None


class FingerprintPart(Part):
    """What a local engine serves, because a calibration is valid only for the model that it was made for.

    `weights` and `template` are the fingerprints of the weights and the chat template as `spillway check` prints them.
    A value left out is unknown; `spillway up` knows all three.
    """

    weights: str | None = Field(None, min_length=1)
    template: str | None = Field(None, min_length=1)
    quantisation: str | None = Field(None, min_length=1)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint, with "*" for every value that is unknown."""
        return Fingerprint(self.weights or ANY, self.template or ANY, self.quantisation or ANY)


_DISCOVERED_FROM = {
    "file": "the path of the file with the engines",
    "kubernetes": "namespace/service",
    "sky": "the name of the SkyPilot service",
    "ray": "the name of the Ray Serve application",
}


class BackendPart(Part):
    """One backend. A value left out comes from the provider's catalogue entry.

    `local: true` says that it runs on your own hardware, so that private content goes there, and requests cost nothing.
    At the address of a cloud that is an error. At another public address, or a name that leads to none but such, it is
    one too, unless `own_host` says, in your words, why the machine is yours.

    With the model "*" it serves every model that the price lists name for its provider: requests ask for NAME/MODEL,
    which may also stand in `chain`, `escalate_to` and `external`.

    `endpoints` are those of the provider that the model serves; by default all. `embedding_space` names the space in
    which its vectors lie, which by default is that of its provider and model: only backends of the same space answer
    embeddings in each other's place. `max_inputs` is the most inputs of one call for embeddings; requests with more are
    split.

    `unbounded` says what happens under a budget to a request with a field, content part or tool whose cost is not known
    to be bounded: refuse asks another backend, or refuses it with a 400 that names the field; hold sends it, and holds
    the whole context of the model for it. `output_bound_field` is the field of a chat by which the server bounds its
    output. `on_disconnect` says what the provider does when the connection closes in the middle of an answer: it goes
    on generating and bills all of it (continues), or it stops. With `drain: false` an answer that goes on without its
    client is not read to its usage, and is charged by an estimate. `zero_data_retention: true` says that its provider
    has agreed to keep nothing of your requests; others get no request with `provider.zdr`.

    With `discover` the line stands for many engines, which come and go without a restart: those at the addresses of a
    name (dns, `discover_from: host:port`), in the lines of a file (file, `discover_from: path`), behind a Service of
    Kubernetes (kubernetes, `discover_from: namespace/service`), or the replicas of a SkyPilot service (sky) or a Ray
    Serve application (ray), by their names. It is read every `discover_every_s`, and the changes of a Service as they
    come. `discover_api` is the address of the API, if not the usual one, `discover_token_file` holds the token for it,
    and `discover_ca_file` the authority of its certificate. Such a backend has no `base_url`, and stands in the chains
    of aliases only.
    """

    name: str = Field(pattern=_NAME)
    provider: str
    model: str = Field(min_length=1)
    local: bool | None = None
    own_host: str = Field("", max_length=200)
    base_url: str | None = None
    discover: Literal["dns", "file", "kubernetes", "sky", "ray"] | None = None
    discover_from: str = Field("", max_length=4096)
    discover_every_s: float = Field(5, ge=0.05, le=3600)
    discover_api: str = Field("", max_length=2048, pattern=r"^(https?://[^\s@]+)?$")
    discover_token_file: Path | None = None
    discover_ca_file: Path | None = None
    api_key: str | None = Field(None, repr=False)
    api_key_file: Path | None = None
    headers: dict[str, str] = Field({}, repr=False)
    price: PricePart | None = None
    endpoints: tuple[Endpoint, ...] | None = Field(None, min_length=1)
    embedding_space: str = Field("", max_length=200)
    max_inputs: int | None = Field(None, ge=1)
    context_tokens: int | None = Field(None, ge=1, le=LONGEST_CONTEXT)
    stall_s: float | None = Field(None, gt=0)
    max_output_tokens: int = Field(4096, ge=1, le=LONGEST_CONTEXT)
    unbounded: Literal["refuse", "hold"] = "refuse"
    output_bound_field: Literal["max_tokens", "max_completion_tokens", "num_predict"] | None = None
    on_disconnect: Literal["continues", "stops", "unknown"] | None = None
    drain: bool = True
    zero_data_retention: bool = False
    prefill_tokens_per_s: float | None = Field(None, gt=0)
    max_sequences: int | None = Field(None, ge=1)
    fingerprint: FingerprintPart | None = None

    @model_validator(mode="after")
    def _discovered(self) -> Self:
        if self.discover is None:
            return self
        if self.base_url is not None:
            raise ValueError("give base_url or discover, not both")
        if self.model == ANY_MODEL:
            raise ValueError("a discovered backend serves one model; name it")
        host, _, port = self.discover_from.rpartition(":")
        if self.discover == "dns" and not (host and port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError("write host:port in discover_from, such as engines.llm.svc:8000")
        if not self.discover_from:
            raise ValueError(f"write {_DISCOVERED_FROM[self.discover]} in discover_from")
        if self.discover == "kubernetes":
            ServiceName.of(self.discover_from)
        if self.discover in ("dns", "file") and (
            self.discover_api or self.discover_token_file or self.discover_ca_file
        ):
            raise ValueError(
                f"a backend that is discovered by {self.discover} asks no API; leave discover_api, "
                "discover_token_file and discover_ca_file out"
            )
        return self

    def with_paths(self, placed: Callable[[Path], Path]) -> Self:
        """Return the backend with the paths of its files as `placed` makes them."""
        update: dict[str, Any] = {}
        if self.api_key_file is not None:
            update["api_key_file"] = placed(self.api_key_file)
        if self.discover == "file":
            update["discover_from"] = str(placed(Path(self.discover_from)))
        for name in ("discover_token_file", "discover_ca_file"):
            if getattr(self, name) is not None:
                update[name] = placed(getattr(self, name))
        return self.model_copy(update=update) if update else self


class AliasPart(Part):
    """A model name that clients use, and the backends behind it in the order in which they are tried.

    `weights` put a backend first for a share of the requests, of each key, user or session by `weights_by`; the others
    of the chain follow.
    """

    chain: tuple[str, ...] = Field(min_length=1)
    weights: Mapping[str, Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]] = {}
    weights_by: By = "request"

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        for name in self.weights:
            if name not in self.chain:
                raise ValueError(
                    f"{name} has a weight and is not in the chain; add it to the chain, or remove the weight"
                )
        if self.weights and not any(self.weights.values()):
            raise ValueError("all weights are 0; give one backend more, or remove the weights")
        return self


class SloPart(Part):
    """The latency promise: milliseconds to the first token, and milliseconds per output token."""

    ttft_ms: float = Field(2000, gt=0)
    tpot_ms: float = Field(100, gt=0)


BUSY_FOR_S = 10.0


class GpuUtilisationPart(Part):
    """From which share of time on, and for how many seconds, the GPU must be busy to make requests overflow."""

    above: float = Field(ge=0, lt=1)
    for_s: float = Field(BUSY_FOR_S, ge=0, le=600)


class OverflowPart(Part):
    """When a request leaves an engine beside what the latency promise and the KV cache say.

    `gpu_utilisation` is NVML's: it says that the GPU is busy, not that it is full, so it is off by default. Without a
    fresh reading of all GPUs it moves nothing.

    With `leaves: arrival` a request that would come too late leaves when it arrives. With `leaves: price` it waits for
    the engine until the last moment at which a cloud can keep the promise, and those leave whose price at the cloud is
    lowest for the GPU work that they would have been.
    """

    leaves: Literal["arrival", "price"] = "arrival"
    gpu_utilisation: GpuUtilisationPart | None = None

    @property
    def by_price(self) -> bool:
        """Whether what leaves is chosen by price among the requests that wait."""
        return self.leaves == "price"

    @property
    def busy_for_s(self) -> float:
        """For how many seconds a GPU must be busy to count as busy, also in the rules of the policy."""
        return BUSY_FOR_S if self.gpu_utilisation is None else self.gpu_utilisation.for_s


class HedgingPart(Part):
    """Ask a second backend for a stream of which nothing has come after `after` times the expected time to first token,
    and at least `shortest_ms`. Who answers first is the one that the client hears; both are paid.

    At most `share` of the streams are hedged, `burst` at once, and only where a gained second is worth
    `usd_per_second`. Private requests are hedged by engines only.
    """

    enabled: bool = False
    after: float = Field(3.0, ge=1)
    shortest_ms: int = Field(200, ge=1)
    share: float = Field(0.05, gt=0, le=1)
    burst: int = Field(5, ge=1)
    usd_per_second: Decimal = Field(Decimal("0.001"), ge=0)

    def rule(self) -> HedgeRule | None:
        """Return the rule of hedges; None if they are off."""
        if not self.enabled:
            return None
        return HedgeRule(
            after=self.after,
            shortest_s=self.shortest_ms / 1000,
            share=self.share,
            burst=self.burst,
            nano_per_s=int(self.usd_per_second * NANO),
        )


class RulePart(Part):
    """A rule for one value of a JSON answer: a pattern for the whole value, bounds of a number, or that the value
    occurs in the request.

    `field` is a JSON pointer. A value that is null or absent breaks no rule.
    """

    field: str = Field(pattern=r"^(/[^/]*)+$")
    pattern: str | None = None
    min: float | None = None
    max: float | None = None
    in_source: bool = False

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is not a valid regular expression: {error}") from None
        return value


class SelfCheckPart(Part):
    """A second question to the engine about its own answer, where the calibrated confidence of a whole answer lies
    within `band` of the threshold.

    `ask` selects the question: p_true asks whether the answer is right (one token), stated asks how sure the model is
    from 0 to 100, and none asks nothing. The reply changes the confidence only through a calibration that was made
    with it. An empty `question` uses the default wording. `words` are the replies that mean right and wrong.
    `timeout_ms` is the longest wait, within the time that the latency promise leaves.
    """

    ask: Literal["none", "p_true", "stated"] = "none"
    band: float = Field(0.1, gt=0, le=1)
    timeout_ms: float = Field(500, gt=0, le=60_000)
    question: str = Field("", max_length=2000)
    words: tuple[str, str] = ("True", "False")

    @field_validator("words")
    @classmethod
    def _words(cls, value: tuple[str, str]) -> tuple[str, str]:
        one, other = (word.strip().casefold() for word in value)
        if not one or not other or one[0] == other[0]:
            raise ValueError("need different first letters, as one token may hold no more; write such as [True, False]")
        return value


class RefereePart(Part):
    """Who is asked about whole answers without log-probabilities, where a threshold is to judge them: a `backend`, or
    self for the one that gave the answer. Empty: nobody, and such an answer is final.

    The referee replies with a number from 0 to 100, and the answer is unsure if a hundredth of it is below the
    threshold. It sees the request and the answer, so privacy, keys, rules and budgets bind its calls as any others, and
    they are paid and booked. `timeout_ms` is the longest wait; without a reply the answer is final. An empty `question`
    uses the default wording.
    """

    backend: str = ""
    timeout_ms: float = Field(5000, gt=0, le=60_000)
    question: str = Field("", max_length=2000)
    max_tokens: int = Field(MOST_TOKENS, ge=1, le=4096)


class ConfidencePart(Part):
    """How sure a local answer must be. An answer below `threshold` is escalated to the first backend of `escalate_to`
    that may receive it. With an empty `escalate_to` nothing is escalated. Where a step is written as `{backend,
    threshold}`, its answer goes on to the next one if its confidence is below that threshold. `step_calibrations` are
    calibrations for the models of steps, by backend; the certified threshold applies to a step that has none.

    `calibration` is a file written by `spillway calibrate`; its certified threshold applies unless `threshold` is set.
    `hold_tokens` is the number of tokens of a stream that are held back before the stream is committed; auto holds as
    many as the promised time to first token leaves time for. `audit_share` is the share of local answers that are
    answered again to check the confidence, by the first backend of `escalate_to` (for documents, of
    `documents.external`) that may receive them. `top_logprobs` is the number of alternatives per token that the engine
    is asked for; the number that a calibration was made with takes precedence. A JSON answer with a value that breaks
    one of the `rules` counts as not sure, whatever its log-probabilities. `self_check` asks the engine a second
    question.
    """

    threshold: float = Field(0.8, ge=0, le=1)
    escalate_to: Steps = ()
    calibration: Path | None = None
    step_calibrations: Mapping[str, Path] = {}
    hold_tokens: Annotated[int, Field(ge=0, le=512)] | Literal["auto"] = "auto"
    audit_share: float = Field(0.0, ge=0, le=1)
    top_logprobs: int = Field(2, ge=2, le=5)
    rules: tuple[RulePart, ...] = ()
    self_check: SelfCheckPart = SelfCheckPart()
    referee: RefereePart = RefereePart()


class RetentionPart(Part):
    """For how many minutes requests are kept in memory, at most 64 MiB of them. 0 keeps none.

    `retry` of POST /v1/feedback and repeated idempotency keys need them. Private requests are never kept.
    """

    minutes: float = Field(0.0, ge=0, le=1440)


ALL_CLOUDS = "cloud"


def _dropped(value: object) -> object:
    if isinstance(value, str) and value != ALL_CLOUDS:
        raise ValueError(f"write the names as a list, such as [{value}], or the word cloud for every cloud backend")
    if value in ([], ()):
        raise ValueError("names no backend; write a list of names, or the word cloud for every cloud backend")
    return value


class RungPart(Part):
    """Cloud backends that are left out once the share `at` of the limit is used: a list of names, or the word cloud
    for every cloud backend."""

    at: Decimal = Field(gt=0, le=1)
    drop: Annotated[tuple[str, ...] | Literal["cloud"], BeforeValidator(_dropped)]


class BudgetPart(Part):
    """A cap in USD per period. The scope is one of all, each key, each user, backend:NAME, key:ID and tier:NAME. `each
    key` is a cap that every API key has for itself; a cap of `key:ID` for the same period takes its place. `each user`
    is a cap of every user whom the requests of a key name, and of those of its requests that name nobody.

    `degrade` lists the backends that are left out as the budget runs low. With `pacing`, the router makes only
    escalations that are worth their price, so that the budget lasts for the whole period.
    """

    scope: str
    period: Literal["hour", "day", "month"]
    limit_usd: Money
    alert_at: tuple[Annotated[Decimal, Field(gt=0, le=1)], ...] = (Decimal("0.5"), Decimal("0.8"), Decimal(1))
    degrade: tuple[RungPart, ...] = ()
    pacing: bool = False

    @field_validator("scope")
    @classmethod
    def _scope(cls, value: str) -> str:
        try:
            if value not in EACH:
                check_scope(value)
        except BudgetError as error:
            raise ValueError(str(error)) from None
        if value.startswith("user:"):
            raise ValueError("a single user can't have a budget; use each user, or a key of its own and key:ID")
        return value

    @model_validator(mode="after")
    def _each_has_no_steps(self) -> Self:
        if self.scope in EACH and (self.degrade or self.pacing):
            raise ValueError(f"degrade and pacing need one budget; remove them from the budget of {self.scope}")
        return self

    def line(self) -> BudgetLine:
        """Return the budget line, in nano-dollars."""
        return BudgetLine(self.scope, self.period, int(self.limit_usd * NANO), self.alert_at)


class CreditsPart(Part):
    """How many requests, and how many better answers, somebody may have per period. The scope is one of all, each key,
    each user, key:ID and tier:NAME. A line of `key:ID` takes the place of one of each key for the same period, and what
    a key sets for its own users that of one of each user."""

    scope: str
    period: Literal["hour", "day", "month"]
    requests: Annotated[int, Field(ge=0, le=MOST_CREDITS)] | None = None
    better: Annotated[int, Field(ge=0, le=MOST_CREDITS)] | None = None

    @model_validator(mode="after")
    def _counts_something(self) -> Self:
        if self.requests is None and self.better is None:
            raise ValueError("credits need a number of requests, of better answers, or both")
        self.lines()
        return self

    def lines(self) -> tuple[CreditLine, ...]:
        """Return a line for each kind that is counted. Raises BudgetError, which is a ValueError, for its scope."""
        limits: dict[Counted, int | None] = {"requests": self.requests, "better": self.better}
        return tuple(
            CreditLine(self.scope, self.period, limit, counted)
            for counted, limit in limits.items()
            if limit is not None
        )


class AlertsPart(Part):
    """The webhook to which alerts are posted in addition to the log. The secret signs the messages.

    Alerts report budgets, audits that contradict the confidence threshold, and a calibration that is not used.
    """

    webhook_url: str | None = Field(None, repr=False)
    secret: str | None = Field(None, min_length=8, repr=False)

    @field_validator("webhook_url")
    @classmethod
    def _webhook_url(cls, value: str | None) -> str | None:
        return None if value is None else _complete_url(value)


class ThresholdsPart(Part):
    """The lowest confidence at which each step of a document's extraction gives the answer."""

    local: float = Field(0.9, ge=0, le=1)
    parser: float = Field(0.8, ge=0, le=1)
    external: float = Field(0.8, ge=0, le=1)


class SchemaPart(Part):
    """The values to extract from a document, as the JSON schema of an object.

    `prompt` is the text that precedes the document for a local model that was trained on this schema. Without it the
    model is shown the schema.
    """

    json_schema: dict[str, Any] = Field(alias="schema")
    prompt: str = ""


class DocumentsPart(Part):
    """Extraction of values from documents: by the local model, parsers, an external model and human review.

    `external` names the cloud backends in the order in which they are tried. Without it they are those of
    `confidence.escalate_to`, or else those of the request's model. `external_trust` is the confidence in a value that
    appears in the document but comes from a model without log-probabilities. `parsers` is a folder with your own
    parsers. With `reviews`, a document that no step was sure of is stored with its text for a person to decide, until
    `keep_days` days after the decision; while `most_open` documents wait, new ones are not stored. `ocr_languages` are
    Tesseract's names of the languages in which pictures and scans are read, such as [eng, deu]; with [] they are
    refused. A file that takes longer than `file_s` seconds to read is refused.
    """

    thresholds: ThresholdsPart = ThresholdsPart()
    external: tuple[str, ...] = ()
    external_trust: float = Field(0.9, ge=0, le=1)
    parsers: Path | None = None
    schemas: Mapping[str, SchemaPart] = {}
    default_schema: str = "biometry"
    max_chars: int = Field(200_000, ge=1, le=10_000_000)
    max_output_tokens: int = Field(512, ge=1, le=100_000)
    most_at_once: int = Field(64, ge=1)
    reviews: bool = True
    keep_days: float = Field(30, ge=0, le=36_500)
    most_open: int = Field(10_000, ge=1)
    ocr_languages: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{1,30}$")], ...] = ("eng",)
    file_s: float = Field(60, gt=0, le=600)


class PresidioPart(Part):
    """Microsoft Presidio finds names and other personal data too, by a language model. It is slow.

    `model` is the spaCy model; empty: the large one of the language. `entities` are the kinds to find, such as PERSON
    or LOCATION; empty: all of them. `min_score` is the least certainty.
    """

    language: str = Field("en", pattern=r"^[a-z]{2}$")
    model: str = Field("", pattern=r"^[a-z0-9_]{0,64}$")
    entities: tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")], ...] = ()
    min_score: float = Field(0.6, ge=0, le=1)


def _pattern_name(value: object) -> object:
    if value not in PATTERN_NAMES:
        raise ValueError(f"there is no pattern {value!r}; the patterns are {', '.join(PATTERN_NAMES)}")
    return value


PatternName = Annotated[str, BeforeValidator(_pattern_name), Field(json_schema_extra={"enum": list(PATTERN_NAMES)})]


def _language(value: object) -> object:
    if value not in WORD_LISTS:
        raise ValueError(f"there is no list of words for {value!r}; there are {', '.join(WORD_LISTS)}")
    return value


Language = Annotated[str, BeforeValidator(_language), Field(json_schema_extra={"enum": list(WORD_LISTS)})]


class PrivacyPart(Part):
    """What makes a request private: a default, words, patterns, and content that cannot be read.

    `match` says whether keywords are whole words or may be parts of longer ones. `word_lists` are built-in lists by
    language. `patterns` switches single patterns on or off; all are on. `unreadable` is about pictures, recordings,
    files, token ids and stored input, in which nothing can be searched.
    """

    default: Literal["any", "local-only"] = "any"
    keywords: tuple[Annotated[str, Field(max_length=500)], ...] = ()
    match: Literal["words", "anywhere"] = "words"
    word_lists: tuple[Language, ...] = ()
    patterns: Mapping[PatternName, bool] = {}
    unreadable: Literal["any", "local-only"] = "any"
    presidio: PresidioPart | None = None

    @field_validator("keywords")
    @classmethod
    def _keywords(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for keyword in value:
            keyword_forms(keyword)
        return value


class KeysPart(Part):
    """Whether requests need a key. They always do when the router listens beyond loopback.

    An address gets a 401 for so many failed logins per minute, then 429; 0 slows nobody. Valid keys of the same address
    are served as ever. `secret_key_file` holds the keys with which stored provider keys are sealed.
    """

    required: bool = False
    secret_key_file: Path | None = None
    failed_logins_per_minute: Annotated[int, Field(ge=0)] = 300


class TlsPart(Part):
    """PEM files with which the router itself speaks TLS: the certificate, followed by those between it and the root,
    and its key without a password. A reload loads renewed files; to switch TLS on or off needs a restart."""

    certificate: Path
    key: Path


class MediaPart(Part):
    """From which hosts engines may fetch the pictures and other media that requests name: of the own network those in
    `allowed_hosts`, of all others those in `only_hosts`, or any if that is empty. `spillway up` tells vLLM too."""

    allowed_hosts: tuple[str, ...] = ()
    only_hosts: tuple[str, ...] = ()

    @property
    def domains(self) -> tuple[str, ...]:
        """The hosts from which alone media may come; () if public ones are not ruled."""
        return (*self.only_hosts, *self.allowed_hosts) if self.only_hosts else ()


SHORTEST_TOKEN = 16
"""Characters of the shortest token that may read metrics."""
SCRAPE_VARIABLE = "SPILLWAY_METRICS_TOKEN"


class MetricsPart(Part):
    """The `token` that Prometheus may send as `Authorization: Bearer` to read /metrics. Where keys are required, the
    metrics need it, or a key with the role viewer or admin. If it is empty, the variable SPILLWAY_METRICS_TOKEN is
    used."""

    token: Annotated[str, Field(min_length=SHORTEST_TOKEN, max_length=512)] | Literal[""] = Field("", repr=False)


class LogPart(Part):
    """With `requests: true` the log has a line of JSON for every finished request, with the fields of a line of GET
    /v1/requests. It never has a text of a request or an answer."""

    requests: bool = False


class TelemetryPart(Part):
    """Where spans and metrics of requests are sent as OTLP over HTTP (extra `otel`), where `otlp_url` is set.

    `otlp_url` is the base URL of a collector, to which `/v1/traces` and `/v1/metrics` are added. `headers` are sent to
    it. `sample` is the share of traces, among those that begin here, whose spans are sent; where a client's
    `traceparent` says, it decides. Metrics are sent every `interval_s` seconds. Only a restart applies a change.
    """

    otlp_url: str | None = None
    headers: Mapping[str, str] = Field({}, repr=False)
    service_name: Annotated[str, Field(min_length=1, max_length=128)] = "spillway"
    sample: float = Field(1.0, ge=0, le=1)
    interval_s: float = Field(15.0, ge=1, le=3600)

    @field_validator("otlp_url")
    @classmethod
    def _otlp_url(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                _HTTP_URL.validate_python(value)
            except ValidationError:
                raise ValueError("write a complete URL, such as http://127.0.0.1:4318") from None
        return value


class CorsPart(Part):
    """The origins whose web pages may call the router from a browser, such as https://chat.example.com; `*` stands for
    every origin. Requests from a page still need a key where keys are required."""

    origins: tuple[str, ...] = ()

    @field_validator("origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.match(origin):
                raise ValueError(f"{origin!r} is no origin; write scheme://host or scheme://host:port, without a path")
        return value


class DashboardPart(Part):
    """The origins under which browsers see the dashboard, such as https://llm.example.com, where a proxy in front of
    the router gives it another Host. Without one, a form must come from the page of its own Host."""

    origins: tuple[str, ...] = ()

    @field_validator("origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.match(origin):
                raise ValueError(f"{origin!r} is no origin; write scheme://host or scheme://host:port, without a path")
        return value


SQLITE_URL = "sqlite:///"
"""What begins the URL of a ledger in a file; a path follows."""


class AnchorPart(Part):
    """Where the router notes the head of the ledger's hash chain, so that rows that were cut off or rewritten show.

    Keep `file` where whoever can change the ledger can't change it. `webhook` posts each head to alerts.webhook_url.
    """

    file: Path | None = None
    webhook: bool = False
    every_s: float = Field(3600, ge=1)


class LedgerPart(Part):
    """The database that records requests and money.

    A ledger that needs longer than `away_after_ms` for one call counts as away: paid calls are refused, and the rows of
    local answers wait in `journal`, a folder. Left out, it is the folder of a SQLite ledger, or else `data`.
    """

    url: str = "sqlite:///data/spillway.db"
    away_after_ms: float = Field(250, ge=50, le=60_000)
    journal: Path | None = None
    anchor: AnchorPart = AnchorPart()

    @property
    def path(self) -> Path | None:
        """The file of a SQLite ledger, None for another database and for a URL without a file."""
        path = self.url.removeprefix(SQLITE_URL)
        return None if path == self.url or not path or path.endswith("/") else Path(path)


class LimitsPart(Part):
    """Limits of one request in MB and seconds, the number of requests in progress, and the MB that the bodies of all of
    them may take; auto is a sixth of the memory that the container or the machine leaves, at most 4096.

    The `drain` limits are those of answers that their client left and that are read to their usage in the background:
    how many at a time, the MB and the seconds of each, and the seconds that all of them get when the router stops.
    When it is asked to stop, it serves on for `stop_unready_s` while /ready says 503, and then gives the answers in
    progress `stop_s`.
    """

    body_mb: float = Field(32, gt=0, le=1024)
    body_s: float = Field(30, gt=0)
    first_event_s: float = Field(120, gt=0)
    answer_s: float = Field(600, gt=0)
    stall_s: float = Field(30, gt=0)
    in_flight: int = Field(4096, ge=1)
    bodies_mb: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    drains: int = Field(128, ge=0)
    drain_mb: float = Field(16, gt=0, le=1024)
    drain_s: float = Field(120, gt=0)
    drain_stop_s: float = Field(5, ge=0, le=10)
    stop_unready_s: float = Field(0, ge=0, le=300)
    stop_s: float = Field(130, ge=0, le=3600)
    write_stall_s: float = Field(30, gt=0)
    connections_per_address: int = Field(1024, ge=0)


class Settings(Part):
    """The whole configuration. Every setting is optional."""

    listen: str = "127.0.0.1:8080"
    tls: TlsPart | None = None
    server: ServerPart | None = None
    gpu: GpuPart = GpuPart()
    fixed_costs: tuple[FixedCostPart, ...] = ()
    fleet: FleetPart | None = None
    backends: tuple[BackendPart, ...] = (
        BackendPart(name="local", provider="vllm", model="demo", base_url="http://127.0.0.1:8001/v1"),
    )
    aliases: Mapping[str, AliasPart] = {}
    policy: PolicyPart = PolicyPart()
    experiments: tuple[ExperimentPart, ...] = ()
    slo: SloPart = SloPart()
    overflow: OverflowPart = OverflowPart()
    hedging: HedgingPart = HedgingPart()
    confidence: ConfidencePart = ConfidencePart()
    budgets: tuple[BudgetPart, ...] = ()
    credits: tuple[CreditsPart, ...] = ()
    alerts: AlertsPart = AlertsPart()
    documents: DocumentsPart = DocumentsPart()
    privacy: PrivacyPart = PrivacyPart()
    keys: KeysPart = KeysPart()
    media: MediaPart = MediaPart()
    metrics: MetricsPart = MetricsPart()
    log: LogPart = LogPart()
    telemetry: TelemetryPart = TelemetryPart()
    cors: CorsPart = CorsPart()
    dashboard: DashboardPart = DashboardPart()
    ledger: LedgerPart = LedgerPart()
    prices: PricesPart = PricesPart()
    report: ReportPart = ReportPart()
    limits: LimitsPart = LimitsPart()
    retention: RetentionPart = RetentionPart()
    cache: CachePart = CachePart()

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdecimal():
            raise ValueError("write host:port, such as 127.0.0.1:8080")
        if not 0 <= int(port) <= 65535:
            raise ValueError(f"a port is a number from 1 to 65535, or 0 for a free one; write {host}:8080")
        return value

    @field_validator("fixed_costs")
    @classmethod
    def _fixed_costs(cls, value: tuple[FixedCostPart, ...]) -> tuple[FixedCostPart, ...]:
        names = [part.name for part in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {twice[0]} occurs twice; every fixed cost needs a name of its own")
        return value

    @field_validator("experiments")
    @classmethod
    def _experiments(cls, value: tuple[ExperimentPart, ...]) -> tuple[ExperimentPart, ...]:
        names = [part.name for part in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two experiments are called {twice[0]!r}; every experiment needs a name of its own")
        return value

    @property
    def host(self) -> str:
        """The address to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0 lets the system choose one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def scheme(self) -> str:
        """The scheme of the router's URLs."""
        return "http" if self.tls is None else "https"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the router."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    def with_paths_from(self, folder: Path) -> Self:
        """Return the settings with every relative path counted from a folder, the one of the configuration file.

        A path must not depend on the working directory, or each directory would have a ledger of its own.
        """

        def placed(path: Path) -> Path:
            return folder / path.expanduser()

        update: dict[str, Any] = {}
        path, anchor = self.ledger.path, self.ledger.anchor
        ledger: dict[str, Any] = {} if path is None else {"url": f"{SQLITE_URL}{placed(path)}"}
        if anchor.file is not None:
            ledger["anchor"] = anchor.model_copy(update={"file": placed(anchor.file)})
        if self.ledger.journal is not None or path is None:
            ledger["journal"] = placed(self.ledger.journal or Path("data"))
        update["ledger"] = self.ledger.model_copy(update=ledger)
        if self.prices.file is not None or path is None:
            file = placed(Path(self.prices.file or "data/prices.json"))
            update["prices"] = self.prices.model_copy(update={"file": str(file)})
        confidence: dict[str, Any] = {}
        if self.confidence.calibration is not None:
            confidence["calibration"] = placed(self.confidence.calibration)
        steps = {name: placed(file) for name, file in self.confidence.step_calibrations.items()}
        update["confidence"] = self.confidence.model_copy(update={**confidence, "step_calibrations": steps})
        if self.fleet is not None:
            update["fleet"] = self.fleet.with_paths(placed)
        if self.tls is not None:
            files = {"certificate": placed(self.tls.certificate), "key": placed(self.tls.key)}
            update["tls"] = self.tls.model_copy(update=files)
        update["backends"] = tuple(part.with_paths(placed) for part in self.backends)
        update["cache"] = self.cache.with_paths_from(folder)
        if self.policy.learned_complexity is not None:
            learned = placed(self.policy.learned_complexity)
            update["policy"] = self.policy.model_copy(update={"learned_complexity": learned})
        if self.keys.secret_key_file is not None:
            file = placed(self.keys.secret_key_file)
            update["keys"] = self.keys.model_copy(update={"secret_key_file": file})
        if self.documents.parsers is not None:
            update["documents"] = self.documents.model_copy(update={"parsers": placed(self.documents.parsers)})
        return self.model_copy(update=update)

    @property
    def price_file(self) -> Path:
        """The user's own price list. The file need not exist."""
        if self.prices.file is not None:
            return Path(self.prices.file).expanduser()
        path = self.ledger.path
        return (Path("data") if path is None else path.expanduser().parent) / "prices.json"

    def chains(self) -> dict[str, tuple[str, ...]]:
        """Return the chain of each alias. `auto` defaults to all backends of one model, in the order of the file."""
        chains = {alias: part.chain for alias, part in self.aliases.items()}
        chains.setdefault("auto", tuple(b.name for b in self.backends if b.model != ANY_MODEL))
        return chains
