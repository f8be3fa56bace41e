"""The settings of spillway.yaml as frozen values: names, defaults, units and bounds. Read by config.py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AnyHttpUrl,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from spillway_router.config.gpus import GpuName
from spillway_router.config.settings_base import Part as _Part
from spillway_router.config.settings_confidence import ConfidencePart, FingerprintPart
from spillway_router.core.money.budget import BudgetError, BudgetLine, check_scope
from spillway_router.core.money.tariff import NANO, Rates, Tariff, TariffStep, service_of

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_HTTP_URL = TypeAdapter(AnyHttpUrl)

Money = Annotated[Decimal, Field(ge=0, le=10**9)]


class ServerPart(_Part):
    """The engine that `serve` and `up` launch. `loras`: adapters served beside the model, name -> directory; a backend
    reaches one by naming it as its `model`."""

    model: str = "auto"
    vllm_args: tuple[str, ...] = ()
    loras: Mapping[str, str] = {}


class WorkPart(_Part):
    """GPU time per token in microseconds of one GPU at full load; what is left out comes from the GPU's data sheet.

    `prefill_us` per prompt token that was not cached, `decode_us` per output token, `kv_us` per token of context that
    one decode step reads. Measured: 1,000,000 / tokens per second of the whole engine.
    """

    prefill_us: Annotated[Decimal, Field(ge=0, le=10**6)] | None = None
    decode_us: Annotated[Decimal, Field(ge=0, le=10**6)] | None = None
    kv_us: Annotated[Decimal, Field(ge=0, le=10**6)] | None = None


class GpuPart(_Part):
    """What the rented GPUs are and cost: USD per hour of one."""

    name: GpuName | None = None
    price_per_hour: Money = Decimal(0)
    count: int = Field(1, ge=1, le=1024)
    kind: Literal["reserved", "interruptible"] = "reserved"
    work: WorkPart = WorkPart()


class _RatesPart(_Part):
    """USD per million tokens, as decimal text. Left out: as what the tokens are part of."""

    input_per_million: Money
    output_per_million: Money
    cached_input_per_million: Money | None = None
    cache_write_per_million: Money | None = None
    cache_write_long_per_million: Money | None = None
    reasoning_per_million: Money | None = None

    def rates(self) -> Rates:
        """The prices per token."""
        return Rates(
            self.input_per_million,
            self.output_per_million,
            self.cached_input_per_million,
            self.cache_write_per_million,
            self.cache_write_long_per_million,
            self.reasoning_per_million,
        )


class StepPart(_RatesPart):
    """Other prices for prompts above so many tokens, or for a service (`service_tier`) of the provider."""

    above_tokens: int = Field(0, ge=0)
    service: str = ""


class PricePart(_RatesPart):
    """What a backend costs: USD per million tokens, per request and per second, as decimal text."""

    per_request: Money = Decimal(0)
    per_second: Money = Decimal(0)
    steps: tuple[StepPart, ...] = ()
    valid_from: date | None = None
    valid_until: date | None = None
    checked_on: date | None = None
    retired_on: date | None = None

    def tariff(self) -> Tariff:
        """The tariff. Raises TariffError."""
        rates = self.rates()
        return Tariff(
            rates.input,
            rates.output,
            rates.cached_input,
            self.per_request,
            "1970-01-01" if self.valid_from is None else self.valid_from.isoformat(),
            "config",
            rates.cache_write,
            rates.cache_write_long,
            rates.reasoning,
            self.per_second,
            tuple(TariffStep(step.rates(), step.above_tokens, service_of(step.service)) for step in self.steps),
            None if self.valid_until is None else self.valid_until.isoformat(),
        )


class PricesPart(_Part):
    """Where `spillway prices import` writes (default: prices.json beside the ledger), and after how many days without
    a look at the provider's page a price is told as stale."""

    file: str | None = Field(None, min_length=1)
    stale_after_days: int = Field(90, ge=1, le=3650)


class BackendPart(_Part):
    """One backend. What is left out comes from the provider's catalogue entry."""

    name: str = Field(pattern=_NAME)
    provider: str
    model: str = Field(min_length=1)
    local: bool | None = None
    base_url: str | None = None
    api_key: str | None = Field(None, repr=False)
    price: PricePart | None = None
    context_tokens: int | None = Field(None, ge=1)
    max_output_tokens: int = Field(4096, ge=1)
    prefill_tokens_per_s: float | None = Field(None, gt=0)
    max_sequences: int | None = Field(None, ge=1)
    fingerprint: FingerprintPart | None = None


class AliasPart(_Part):
    """A model name for clients, and the backends behind it in order."""

    chain: tuple[str, ...] = Field(min_length=1)


class SloPart(_Part):
    """Latency promise: milliseconds to the first token, and per output token."""

    ttft_ms: float = Field(2000, gt=0)
    tpot_ms: float = Field(100, gt=0)


class RetentionPart(_Part):
    """How many minutes requests that are not private are kept in memory, for `retry` of POST /v1/feedback and for
    repeated idempotency keys (at most 64 MiB of them); 0: not at all."""

    minutes: float = Field(0.0, ge=0, le=1440)


ALL_CLOUDS = "cloud"


def _dropped(value: object) -> object:
    if isinstance(value, str) and value != ALL_CLOUDS:
        raise ValueError(f"write the names as a list, such as [{value}], or the word cloud for every cloud backend")
    if value in ([], ()):
        raise ValueError("names no backend; write a list of names, or the word cloud for every cloud backend")
    return value


class RungPart(_Part):
    """From this share of the limit on, these cloud backends are not asked: a list of names, or the word cloud."""

    at: Decimal = Field(gt=0, le=1)
    drop: Annotated[tuple[str, ...] | Literal["cloud"], BeforeValidator(_dropped)]


class BudgetPart(_Part):
    """A cap in USD per period. Scope: all | backend:NAME | key:ID | tier:NAME.

    `degrade`: what is left out as it runs low. `pacing`: escalate only what is worth its price, so that it lasts.
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
            check_scope(value)
        except BudgetError as error:
            raise ValueError(str(error)) from None
        return value

    def line(self) -> BudgetLine:
        """The budget line in nano-dollars."""
        return BudgetLine(self.scope, self.period, int(self.limit_usd * NANO), self.alert_at)


class AlertsPart(_Part):
    """Where alerts are posted besides the log: budgets, audits that speak against the confidence threshold, a
    calibration that is not used. The secret signs them."""

    webhook_url: str | None = Field(None, repr=False)
    secret: str | None = Field(None, min_length=8, repr=False)

    @field_validator("webhook_url")
    @classmethod
    def _webhook_url(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                _HTTP_URL.validate_python(value)
            except ValidationError:
                raise ValueError("write a whole address, such as https://hooks.example.com/spillway") from None
        return value


class ThresholdsPart(_Part):
    """Least confidence with which each step of a document's extraction answers."""

    local: float = Field(0.9, ge=0, le=1)
    parser: float = Field(0.8, ge=0, le=1)
    external: float = Field(0.8, ge=0, le=1)


class SchemaPart(_Part):
    """What is to be read out of documents: the JSON schema of an object, and what stands before the text for local
    models that were trained on it (left out: they are shown the schema)."""

    json_schema: dict[str, Any] = Field(alias="schema")
    prompt: str = ""


class DocumentsPart(_Part):
    """Reading values out of documents: local model, parsers, external model, review.

    `external`: cloud backends in the order they are asked; left out: those of `confidence.escalate_to`, else of the
    request's model. `external_trust`: how sure to be of a value from a model that sends no log-probabilities, if it
    stands in the document. `parsers`: a folder of your own parsers. `reviews`: keep documents that no step was sure of
    for a person, with their text, until `keep_days` after the decision; above `most_open` new ones are not kept.
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


class PrivacyPart(_Part):
    """Default mark of a request, and words that make it private."""

    default: Literal["any", "local-only"] = "any"
    keywords: tuple[str, ...] = ()


class KeysPart(_Part):
    """Whether requests need a key; always true when listening beyond loopback."""

    required: bool = False


class LedgerPart(_Part):
    """Where the money is written down."""

    url: str = "sqlite:///data/spillway.db"


class LimitsPart(_Part):
    """Bounds of one request, in MB and seconds."""

    body_mb: float = Field(32, gt=0, le=1024)
    body_s: float = Field(30, gt=0)
    first_event_s: float = Field(120, gt=0)
    answer_s: float = Field(600, gt=0)
    stall_s: float = Field(30, gt=0)
    in_flight: int = Field(4096, ge=1)


class Settings(_Part):
    """The whole configuration."""

    listen: str = "127.0.0.1:8080"
    server: ServerPart | None = None
    gpu: GpuPart = GpuPart()
    backends: tuple[BackendPart, ...] = (
        BackendPart(name="local", provider="vllm", model="demo", base_url="http://127.0.0.1:8001/v1"),
    )
    aliases: Mapping[str, AliasPart] = {}
    slo: SloPart = SloPart()
    confidence: ConfidencePart = ConfidencePart()
    budgets: tuple[BudgetPart, ...] = ()
    alerts: AlertsPart = AlertsPart()
    documents: DocumentsPart = DocumentsPart()
    privacy: PrivacyPart = PrivacyPart()
    keys: KeysPart = KeysPart()
    ledger: LedgerPart = LedgerPart()
    prices: PricesPart = PricesPart()
    limits: LimitsPart = LimitsPart()
    retention: RetentionPart = RetentionPart()

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
            raise ValueError("write host:port, such as 127.0.0.1:8080")
        return value

    @property
    def host(self) -> str:
        """Address to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port to listen on; 0 lets the system choose."""
        return int(self.listen.rpartition(":")[2])

    @property
    def loopback(self) -> bool:
        """True if only this machine can reach the router."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    @property
    def price_file(self) -> Path:
        """The user's own price list; it need not exist."""
        if self.prices.file is not None:
            return Path(self.prices.file).expanduser()
        path = self.ledger.url.removeprefix("sqlite:///")
        beside = Path(path).expanduser().parent if path != self.ledger.url else Path("data")
        return beside / "prices.json"

    def chains(self) -> dict[str, tuple[str, ...]]:
        """Alias -> chain; `auto` defaults to all backends in the order of the file."""
        chains = {alias: part.chain for alias, part in self.aliases.items()}
        chains.setdefault("auto", tuple(b.name for b in self.backends))
        return chains
