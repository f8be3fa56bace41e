"""The settings of spillway.yaml as frozen values: names, defaults, units and bounds. Read by config.py."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from spillway_router.core.budget import BudgetError, BudgetLine, check_scope
from spillway_router.core.tariff import NANO

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Money = Annotated[Decimal, Field(ge=0, le=10**9)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerPart(_Part):
    """The engine that `serve` and `up` launch."""

    model: str = "auto"
    vllm_args: tuple[str, ...] = ()


class GpuPart(_Part):
    """What the rented GPUs cost: USD per hour of one."""

    price_per_hour: Money = Decimal(0)
    count: int = Field(1, ge=1, le=1024)


class PricePart(_Part):
    """USD per million tokens, as decimal text."""

    input_per_million: Money
    output_per_million: Money
    cached_input_per_million: Money | None = None
    per_request: Money = Decimal(0)
    valid_from: str = "1970-01-01"


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


class AliasPart(_Part):
    """A model name for clients, and the backends behind it in order."""

    chain: tuple[str, ...] = Field(min_length=1)


class SloPart(_Part):
    """Latency promise: milliseconds to the first token, and per output token."""

    ttft_ms: float = Field(2000, gt=0)
    tpot_ms: float = Field(100, gt=0)


class ConfidencePart(_Part):
    """Local answers below the threshold go to the first of `escalate_to`. Empty: no escalation."""

    threshold: float = Field(0.8, ge=0, le=1)
    escalate_to: tuple[str, ...] = ()


class BudgetPart(_Part):
    """A cap in USD per period. Scope: all | backend:NAME | key:ID | tier:NAME."""

    scope: str
    period: Literal["hour", "day", "month"]
    limit_usd: Money
    alert_at: tuple[Annotated[Decimal, Field(gt=0, le=1)], ...] = ()

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
    privacy: PrivacyPart = PrivacyPart()
    keys: KeysPart = KeysPart()
    ledger: LedgerPart = LedgerPart()
    limits: LimitsPart = LimitsPart()

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

    def chains(self) -> dict[str, tuple[str, ...]]:
        """Alias -> chain; `auto` defaults to all backends in the order of the file."""
        chains = {alias: part.chain for alias, part in self.aliases.items()}
        chains.setdefault("auto", tuple(b.name for b in self.backends))
        return chains
