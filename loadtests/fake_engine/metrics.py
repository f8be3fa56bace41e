"""The fake engine's metrics page, under vLLM's names (0.32)."""

from __future__ import annotations

from loadtests.fake_engine.live import LiveEngine
from spillway_router.testing.openai_wire import metrics_page

_BLOCK_TOKENS = 16


def page(engine: LiveEngine, model: str) -> str:
    """Return the gauges, the counters and the cache's size as Prometheus text."""
    batch, counters = engine.batch, engine.counters
    series = {
        "num_requests_running": len(batch.running),
        "num_requests_waiting": len(batch.waiting),
        "kv_cache_usage_perc": batch.kv_usage,
        "generation_tokens_total": counters.generation_tokens,
        "prompt_tokens_total": counters.prompt_tokens,
        "prefix_cache_queries_total": counters.prompt_tokens,
        "prefix_cache_hits_total": 0,
        "admission_rejections_total": counters.rejections,
        "num_preemptions_total": 0,
        "iteration_tokens_total_count": batch.steps,
        "request_success_total": counters.finished,
        "time_to_first_token_seconds_count": counters.first_tokens,
        "time_to_first_token_seconds_sum": counters.first_token_s,
    }
    blocks = batch.model.kv_capacity_tokens // _BLOCK_TOKENS
    return metrics_page(series, model, kv_blocks=blocks, block_tokens=_BLOCK_TOKENS)
