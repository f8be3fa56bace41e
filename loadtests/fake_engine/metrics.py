"""The metrics page, under vLLM's names (0.32)."""

from __future__ import annotations

from loadtests.fake_engine.live import LiveEngine

_BLOCK = 16


def page(engine: LiveEngine, model: str) -> str:
    """Prometheus text: gauges, counters and the cache's size."""
    batch, totals = engine.batch, engine.counters
    series = {
        "num_requests_running": ("gauge", len(batch.running)),
        "num_requests_waiting": ("gauge", len(batch.waiting)),
        "kv_cache_usage_perc": ("gauge", batch.kv_usage),
        "generation_tokens_total": ("counter", totals.generation_tokens),
        "prompt_tokens_total": ("counter", totals.prompt_tokens),
        "prefix_cache_queries_total": ("counter", totals.prompt_tokens),
        "prefix_cache_hits_total": ("counter", 0),
        "admission_rejections_total": ("counter", totals.rejections),
        "num_preemptions_total": ("counter", 0),
        "iteration_tokens_total_count": ("counter", batch.steps),
        "request_success_total": ("counter", totals.finished),
        "time_to_first_token_seconds_count": ("counter", totals.first_tokens),
        "time_to_first_token_seconds_sum": ("counter", totals.first_token_s),
    }
    labels = f'{{engine="0",model_name="{model}"}}'
    lines = [f"# TYPE vllm:{name} {kind}\nvllm:{name}{labels} {value}" for name, (kind, value) in series.items()]
    blocks = batch.model.kv_capacity_tokens // _BLOCK
    cache = f'block_size="{_BLOCK}",engine="0",num_gpu_blocks="{blocks}"'
    lines.append(f"# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{{cache}}} 1.0")
    return "\n".join(lines) + "\n"
