"""The names of gauges and counters in each family of local engines, and the path on which it reports its health.

Names change between versions, and a name that has disappeared must be noticed, not read as 0. Every quantity therefore
lists its names, newest first. The first one on the page is used, and only `optional` quantities may be absent without
an alarm.

The sources of the names are:

- vLLM: `v1/metrics/loggers.py` (0.32) and a page of a live engine. `vllm:gpu_cache_usage_perc` is the name before 0.10;
  the prefix counters also contained `gpu_` then.
- SGLang: `srt/metrics/collector.py`. Its token counters move only when a request ends, the gauges every few steps;
  `realtime_tokens_total` (newer versions) follows the steps. All tensor-parallel ranks may report the same requests.
- llama.cpp: the README of its server and pages of its builds. The KV gauge was removed when the cache was unified;
  `tokens_predicted_total` moves when a request ends, `n_decode_total` with every step.
  Without `--metrics` the page is a 501, and `/slots` says how many requests run, but not how many wait.
- text-embeddings-inference: its README. It counts requests and the queue of its batches; nothing says how many run.
- Ollama, llama-cpp-python and others have no metrics page. Nothing is scraped, and the router's own backlog decides
  alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from spillway_router.signals.own_pages import OwnPage, llamacpp_props, ollama_loaded, tei_info

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The series names of one engine family, newest first; () if the engine has no such series."""

    running: Names = ()
    waiting: Names = ()
    kv_usage: Names = ()
    """Share of the KV cache in use, 0 to 1."""
    generation_tokens: Names = ()
    prompt_tokens: Names = ()
    prefix_queries: Names = ()
    """Prompt tokens looked up in the prefix cache."""
    preemptions: Names = ()
    steps: Names = ()
    """Further series that move while the engine steps; each one on the page counts as a mark of progress."""
    kv_capacity: Names = ()
    """A gauge of the tokens that the KV cache can hold."""
    cache_info: Names = ()
    """A series whose labels give that capacity (`kv_cache_size_tokens`, or `num_gpu_blocks` and `block_size`)."""
    replica_label: str = ""
    """The label that distinguishes replicas behind one port; their counts are added."""
    copy_labels: Names = ()
    """Labels of ranks that each report the same requests; the largest value is used once."""
    optional: frozenset[str] = frozenset()
    """Quantities (field names of this class) that may be absent without an alarm."""
    metrics_path: str = "/metrics"
    """Empty if the engine has no metrics page."""
    metrics_hint: str = ""
    """How the engine is started so that the page is complete, for the log; empty where it always is."""
    slots_path: str = ""
    """The page that says which slots are busy, for an engine whose metrics page is off; empty if there is none."""
    own_path: str = ""
    """The page on which the engine says more of itself than `/v1/models` does; empty if there is none."""
    own_page: OwnPage | None = None
    """Reads that page."""
    own_page_changes: bool = False
    """Whether that page is read again and again, because a model is loaded only with its first request."""
    reads_models: bool = True
    """Whether `/v1/models` is asked for the context length."""
    probe: bool = True
    """Whether a request of one token may find out what the engine can do. False where it would load a model."""
    health_path: str = "/health"
    """The path relative to the server's root, not to its `/v1`."""


VLLM = EngineMetrics(
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    kv_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    generation_tokens=("vllm:generation_tokens_total",),
    prompt_tokens=("vllm:prompt_tokens_total",),
    prefix_queries=("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    preemptions=("vllm:num_preemptions_total",),
    steps=("vllm:iteration_tokens_total_count",),
    cache_info=("vllm:cache_config_info",),
    replica_label="engine",
    # Old versions lack the prefix counter if prefix caching is disabled.
    optional=frozenset({"prefix_queries", "cache_info", "steps"}),
)

SGLANG = EngineMetrics(
    running=("sglang:num_running_reqs",),
    waiting=("sglang:num_queue_reqs",),
    kv_usage=("sglang:token_usage",),
    generation_tokens=("sglang:generation_tokens_total",),
    prompt_tokens=("sglang:prompt_tokens_total",),
    prefix_queries=("sglang:prompt_tokens_total",),
    preemptions=("sglang:num_retracted_requests_total", "sglang:num_retracted_reqs_total"),
    steps=("sglang:realtime_tokens_total", "sglang:num_used_tokens", "sglang:gen_throughput"),
    kv_capacity=("sglang:max_total_num_tokens",),
    replica_label="dp_rank",
    copy_labels=("tp_rank", "pp_rank"),
    # The token counters appear with the first request that ends.
    optional=frozenset({"generation_tokens", "prompt_tokens", "prefix_queries", "preemptions", "steps", "kv_capacity"}),
)

LLAMACPP = EngineMetrics(
    running=("llamacpp:requests_processing",),
    waiting=("llamacpp:requests_deferred",),
    kv_usage=("llamacpp:kv_cache_usage_ratio",),
    generation_tokens=("llamacpp:tokens_predicted_total",),
    prompt_tokens=("llamacpp:prompt_tokens_total",),
    steps=("llamacpp:n_decode_total",),
    optional=frozenset({"kv_usage", "steps"}),
    metrics_hint="start llama-server with --metrics",
    slots_path="/slots",
    own_path="/props",
    own_page=llamacpp_props,
)

TEXT_EMBEDDINGS_INFERENCE = EngineMetrics(
    metrics_path="",
    own_path="/info",
    own_page=tei_info,
    probe=False,
)
"""Its queue gauge alone, without what runs, would add nothing to the router's own count, so it is not scraped."""

OLLAMA = EngineMetrics(
    metrics_path="",
    own_path="/api/ps",
    own_page=ollama_loaded,
    own_page_changes=True,
    probe=False,
    health_path="/api/version",
)

LLAMA_CPP_PYTHON = EngineMetrics(metrics_path="", probe=False, reads_models=False, health_path="/")
"""`GET /v1/models` ends the stream in progress there, or waits for it. `/` is a 404 at once: it lives."""

WITHOUT_METRICS = EngineMetrics(metrics_path="", health_path="/v1/models", probe=False)
"""For any server that speaks only the OpenAI API."""

ENGINE_METRICS: Mapping[str, EngineMetrics] = MappingProxyType(
    {
        "vllm": VLLM,
        "sglang": SGLANG,
        "llamacpp": LLAMACPP,
        "llamacpp-python": LLAMA_CPP_PYTHON,
        "ollama": OLLAMA,
        "tei": TEXT_EMBEDDINGS_INFERENCE,
    }
)


def engine_metrics(provider: str) -> EngineMetrics:
    """Return the names for a provider; an unknown provider counts as an engine without metrics."""
    return ENGINE_METRICS.get(provider, WITHOUT_METRICS)
