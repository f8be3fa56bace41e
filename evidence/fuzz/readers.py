"""Fuzzing of what reads files and pages: damaged input is refused by the reader's own error, and never crashes it.

Each reader has valid inputs. They are changed at a few places, as bytes or, where they are JSON, as values, and read.
An exception that the reader doesn't promise is a finding.
"""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, get_args

from evidence.fuzz import bodies
from spillway_router.config import load
from spillway_router.config.derived import DerivedConfig
from spillway_router.config.load import ConfigError, Loaded
from spillway_router.core.routing.model import Caller, Endpoint
from spillway_router.documents.parser_files import ParserError, read_parser
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.verify import verify
from spillway_router.prices.imported import read_source
from spillway_router.prices.rows import PriceError
from spillway_router.privacy.detectors import PATTERN_NAMES, Detectors
from spillway_router.privacy.embedded import embedded_texts
from spillway_router.providers.sse import SseDecoder, SseError
from spillway_router.proxy.request.body import load as load_body
from spillway_router.proxy.request.errors import RefusedError
from spillway_router.proxy.request.facts import PrivacyRule, read_facts
from spillway_router.proxy.request.media_urls import refuse_media
from spillway_router.signals.engines import VLLM
from spillway_router.signals.exposition import ExpositionReader
from spillway_router.testing import openai_wire as wire
from spillway_router.testing import streams
from spillway_server.convert import source
from spillway_server.engine.liveness import read_activity
from spillway_server.planning import models

ROOT: Final = Path(__file__).resolve().parents[2]
DAY: Final = date(2026, 11, 29)
_NUMBER: Final = re.compile(rb"-?\d+(\.\d+)?")
_WORDS: Final = (
    b"NaN", b"-1", b"1e999", b"9" * 5000, b"null", b"~", b"''", b"\x00", b"\xff", b"${X}", b"[" * 2000, b"!!python/x",
    b"&a", b"*a", b"2026-99-99", b"!!bool ", b"!!timestamp ", b"!!int ''", b"!!float ''", b"!!binary \xff",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader under test. `read` gets the input and an empty folder; `refusals` are the errors that it promises."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes, Path], object]
    refusals: tuple[type[Exception], ...] = ()


@dataclass(frozen=True, slots=True)
class Crash:
    """An input that a reader neither read nor refused."""

    reader: str
    error: str
    data: bytes


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return the input with a few changes."""
    if data[:1] == b"{" and rng.random() < 0.7:
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if isinstance(value, dict):
            return bodies.encoded(bodies.changed(value, rng))
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(result) + 1)
        how = rng.random()
        if how < 0.3 and result:
            result[min(at, len(result) - 1)] ^= 1 << rng.randrange(8)
        elif how < 0.5:
            result[at:at] = rng.choice(_WORDS)
        elif how < 0.65:
            del result[at : at + rng.randint(1, 200)]
        elif how < 0.8:
            end = min(len(result), at + rng.randint(1, 200))
            result[at:at] = result[at:end]
        elif numbers := list(_NUMBER.finditer(result)):
            number = rng.choice(numbers)
            result[number.start() : number.end()] = rng.choice(_WORDS)
    return bytes(result)


def attempt(reader: Reader, data: bytes, folder: Path) -> Crash | None:
    """Read the input once."""
    try:
        reader.read(data, folder)
    except reader.refusals:
        return None
    except Exception as error:
        return Crash(reader.name, f"{type(error).__name__}: {error}"[:300], data)
    return None


def crashes(readers: Sequence[Reader], seed: int, most: int, folder: Path) -> list[Crash]:
    """Give `most` damaged inputs to each reader; return those that it crashed on, one for each kind of error."""
    kinds: dict[tuple[str, str], Crash] = {}
    for reader in readers:
        rng = random.Random(seed ^ zlib.crc32(reader.name.encode()))
        for _ in range(most):
            crash = attempt(reader, damaged(rng.choice(reader.seeds), rng), folder)
            if crash is not None:
                kinds.setdefault((crash.reader, crash.error.partition(":")[0]), crash)
    return list(kinds.values())


def _configuration(data: bytes, _: Path) -> object:
    text = data.decode("utf-8", "replace")
    loaded = Loaded(load.parse(text, {}), None, text, {})
    return DerivedConfig.of(loaded, DAY)


def _sse(data: bytes, _: Path) -> object:
    parser = SseDecoder()
    return [parser.feed(data[i : i + 37]) for i in range(0, len(data), 37)]


def _ledger(data: bytes, folder: Path) -> object:
    path = folder / "ledger.db"
    for left in folder.glob("ledger.db*"):
        left.unlink()
    path.write_bytes(data)
    ledger = open_ledger(f"sqlite:///{path}", "read")
    try:
        return verify(ledger)
    finally:
        ledger.close()


def _checkpoint(data: bytes, folder: Path) -> object:
    (folder / "config.json").write_bytes(data)
    (folder / "x.safetensors").write_bytes(b"0" * 100)
    return models.from_directory(folder, "x")


def _model_source(data: bytes, folder: Path) -> object:
    path = folder / "Modelfile"
    path.write_bytes(data)
    return source.find(path)


def _metrics(data: bytes, _: Path) -> object:
    return ExpositionReader(VLLM).read(data.decode("utf-8", "replace"))


def _activity(data: bytes, _: Path) -> object:
    return read_activity(data.decode("utf-8", "replace"))


def _prices(data: bytes, _: Path) -> object:
    return read_source(data, DAY)


def _parser(data: bytes, _: Path) -> object:
    return read_parser(data.decode("utf-8", "replace"), "x")


def _request(data: bytes, _: Path) -> object:
    head, _empty, body = data.partition(b"\n\n")
    pairs = (line.partition(":") for line in head.decode("latin-1").splitlines())
    headers = {name.strip().lower(): value.strip() for name, _colon, value in pairs}
    parsed, facts = load_body(body), []
    for endpoint in get_args(Endpoint):
        try:
            facts.append(read_facts("r", endpoint, headers, parsed, Caller(), _RULE))
        except RefusedError:
            continue
    return facts


def _media(data: bytes, _: Path) -> object:
    refuse_media([data.decode("utf-8", "replace")], frozenset())
    return None


def _embedded(data: bytes, _: Path) -> object:
    return [_DETECTORS.kinds_in_text(piece) for piece in embedded_texts(data)]


def small_ledger(folder: Path) -> bytes:
    """Return the file of an empty ledger."""
    path = folder / "seed.db"
    open_ledger(f"sqlite:///{path}").close()
    return path.read_bytes()


def readers(ledger: bytes) -> tuple[Reader, ...]:
    """Return all readers; `ledger` is a ledger's file."""
    example = (ROOT / "deploy" / "spillway.example.yaml").read_bytes()
    parsers = sorted((ROOT / "router" / "spillway_router" / "documents" / "parsers").glob("*.yaml"))
    page = wire.IDLE_METRICS
    shapes = (streams.chat, streams.completions, streams.responses, streams.messages)
    return (
        Reader("configuration", (example, _SETTINGS), _configuration, (ConfigError,)),
        Reader("stream", tuple(shape("yes").body for shape in shapes), _sse, (SseError,)),
        Reader("metrics", (page,), _metrics),
        Reader("activity", (page,), _activity, (ValueError, ArithmeticError, LookupError)),
        Reader("ledger", (ledger,), _ledger, (LedgerError,)),
        Reader("checkpoint", tuple(map(bodies.encoded, (_CHECKPOINT, _NESTED))), _checkpoint),
        Reader("model source", (_MODELFILE, bodies.encoded(_MANIFEST), b"GGUF\x03"), _model_source),
        Reader("prices", (bodies.encoded(_PRICES),), _prices, (PriceError,)),
        Reader(
            "request", tuple(b"x-session-id: s\n\n" + bodies.encoded(body) for body in _REQUESTS), _request, _REFUSED
        ),
        Reader("media address", (b"http://127.0.0.1/x", b"https://user@example.com:80/a?b#c"), _media, _REFUSED),
        Reader("base64", (b'{"data": "' + base64.b64encode(b"the password of Mr X, 4111 1111") + b'"}',), _embedded),
        Reader("parser", tuple(path.read_bytes() for path in parsers[:3]), _parser, (ParserError,)),
    )


_REFUSED: Final = (RefusedError,)
_DETECTORS: Final = Detectors(("password", "médical"), patterns=PATTERN_NAMES)
_RULE: Final = PrivacyRule(detectors=_DETECTORS, unreadable=True)
_PART: Final[bodies.Body] = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
_REQUESTS: Final[tuple[bodies.Body, ...]] = (
    {"model": "auto", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, _PART]}]},
    {"prompt": ["a", [1, 2]], "max_tokens": 5, "n": 2, "best_of": 3, "logprobs": 1},
    {"input": [{"type": "message", "role": "user", "content": "x"}], "tools": [{"type": "web_search"}]},
    {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9, "metadata": {"user_id": "u", "privacy": "any"}},
)
_SETTINGS: Final = b"""backends:
  - {name: a, provider: vllm, local: true, base_url: 'http://127.0.0.1:1/v1', model: m}
budgets: [{scope: all, period: day, limit_usd: '5'}]
confidence: {threshold: 0.8}
gpu: {price_per_hour: '1'}
"""
_SHAPE: Final[bodies.Body] = {"num_attention_heads": 8, "num_hidden_layers": 4, "hidden_size": 64}
_CHECKPOINT: Final[bodies.Body] = {
    **_SHAPE,
    "num_key_value_heads": 2,
    "torch_dtype": "bfloat16",
    "architectures": ["LlamaForCausalLM"],
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "config_groups": {"a": {"weights": {"num_bits": 4}}},
    },
}
_NESTED: Final[bodies.Body] = {"text_config": _SHAPE, "model_type": "x"}
_MODELFILE: Final = b'FROM ./x.gguf\nTEMPLATE """a"""\nPARAMETER stop "b"\n'
_MANIFEST: Final[bodies.Body] = {
    "layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "0" * 64}]
}
_PRICES: Final[bodies.Body] = {
    "openai/gpt-4o": {
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 2e-6,
        "litellm_provider": "openai",
    }
}
