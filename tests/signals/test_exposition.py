"""The metrics pages of real engines, and pages that are broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from spillway_router.core.routing.backlog import EngineLoad
from spillway_router.signals.engines import LLAMACPP, SGLANG, VLLM, WITHOUT_METRICS, engine_metrics
from spillway_router.signals.exposition import EngineSample, ExpositionReader, ReplicaProgress

DATA = Path(__file__).parent / "data"

counts = st.integers(0, 10**15).map(float) | st.floats(0, 1e15)
shares = st.floats(0, 1)
label_values = st.text(st.characters(codec="utf-8"), max_size=20)


def read_vllm(text: str) -> EngineSample:
    return ExpositionReader(VLLM).read(text)


def vllm_page(
    *,
    running: dict[str, float],
    waiting: dict[str, float],
    kv: dict[str, float],
    generated: dict[str, float],
    model_name: str = "m",
    info: dict[str, str] | None = None,
) -> str:
    """Return a page from the library that vLLM uses, with other series whose names could be mistaken."""
    registry = CollectorRegistry()
    labels = ["model_name", "engine"]
    for name, values in (
        ("vllm:num_requests_running", running),
        ("vllm:num_requests_waiting", waiting),
        ("vllm:kv_cache_usage_perc", kv),
    ):
        gauge = Gauge(name, name, labels, registry=registry)
        for engine, value in values.items():
            gauge.labels(model_name, engine).set(value)
    by_reason = Gauge(
        "vllm:num_requests_waiting_by_reason", "neighbour", ["model_name", "engine", "reason"], registry=registry
    )
    by_reason.labels(model_name, "0", "capacity").set(9e9)
    for name in ("vllm:generation_tokens", "vllm:prompt_tokens", "vllm:num_preemptions"):
        counter = Counter(name, name, labels, registry=registry)
        for engine, value in generated.items():
            counter.labels(model_name, engine).inc(value)
    Histogram("vllm:iteration_tokens_total", "h", labels, registry=registry).labels(model_name, "0").observe(3)
    if info is not None:
        gauge = Gauge("vllm:cache_config_info", "info", list(info), registry=registry)
        gauge.labels(*info.values()).set(1)
    return generate_latest(registry).decode()


engines = st.integers(1, 4)


@given(engines, st.data())
def test_pages_of_the_client_library_are_read(n: int, data: st.DataObject) -> None:
    names = [str(i) for i in range(n)]

    def draw(values: st.SearchStrategy[float]) -> dict[str, float]:
        return {name: data.draw(values) for name in names}

    running, waiting, kv, generated = draw(counts), draw(counts), draw(shares), draw(counts)
    page = vllm_page(running=running, waiting=waiting, kv=kv, generated=generated, model_name=data.draw(label_values))
    sample = read_vllm(page)
    assert sample.load is not None
    read = (sample.load.waiting, sample.load.running, sample.load.kv_usage)
    assert read == pytest.approx((sum(waiting.values()), sum(running.values()), sum(kv.values()) / n))
    assert sample.missing == ()
    assert [replica.replica for replica in sample.progress] == names
    for replica in sample.progress:
        assert replica.unfinished == running[replica.replica] + waiting[replica.replica]
        assert replica.marks[:4] == tuple(d[replica.replica] for d in (running, waiting, kv, generated))


@given(st.text() | st.text('vllm:num_requests_running{}="\\ \n1.e,#', max_size=200))
def test_no_text_raises_an_error(text: str) -> None:
    sample = read_vllm(text)
    assert sample.load is None
    assert "vllm:kv_cache_usage_perc" in sample.missing


@given(label_values, label_values)
def test_labels_survive_quotes_backslashes_and_braces(model_name: str, other: str) -> None:
    info = {"other": other, "num_gpu_blocks": "100", "block_size": "16", "last": model_name}
    one = {"0": 1.0}
    sample = read_vllm(vllm_page(running=one, waiting=one, kv=one, generated=one, model_name=model_name, info=info))
    assert sample.kv_capacity_tokens == 1600
    assert sample.load == EngineLoad(1, 1, 1)


def test_a_real_page_of_vllm() -> None:
    text = (DATA / "vllm_0.32_cpu_busy.txt").read_text()
    sample = read_vllm(text)
    assert sample.load == EngineLoad(waiting=0, running=8, kv_usage=0.004397215097105112)
    assert sample.missing == ()
    assert sample.kv_capacity_tokens == 349_440
    assert sample.progress == (
        ReplicaProgress("0", 8.0, (8.0, 0.0, 0.004397215097105112, 9046.0, 2247.0, 2247.0, 0.0, 4510.0)),
    )
    parsed = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    assert parsed["vllm:generation_tokens_total"] == sample.progress[0].marks[3]
    assert parsed["vllm:num_requests_running"] == sample.load.running


@pytest.mark.parametrize(
    "name",
    ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prompt_tokens_total"],
)
def test_a_renamed_series_is_reported_missing_not_read_as_zero(name: str) -> None:
    text = (DATA / "vllm_0.32_cpu_busy.txt").read_text().replace(name + "{", name + "_renamed{")
    sample = read_vllm(text)
    assert sample.missing == (name,)
    assert (sample.load is None) == (name != "vllm:prompt_tokens_total")


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "nonsense", "1_0", "0x10", "1e308", "9" * 400, "\u0661\u0662"])
def test_a_value_that_is_no_count_is_missing(value: str) -> None:
    page = f"vllm:num_requests_running {value}\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n"
    sample = read_vllm(page)
    assert sample.load is None
    assert sample.missing[0] == "vllm:num_requests_running"


def test_the_old_name_is_used_only_if_the_new_one_is_absent() -> None:
    base = "vllm:num_requests_running 2\nvllm:num_requests_waiting 1\nvllm:gpu_cache_usage_perc 0.5\n"
    old = read_vllm(base)
    assert old.load == EngineLoad(1, 2, 0.5)
    both = read_vllm(base + "vllm:kv_cache_usage_perc 0.25\n")
    assert both.load == EngineLoad(1, 2, 0.25)


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        # vLLM's data parallel front end writes the sum of the blocks to every replica's line ...
        (['engine="0",num_gpu_blocks="200",block_size="16"', 'engine="1",num_gpu_blocks="200",block_size="16"'], 3200),
        # ... and the tokens of one replica.
        ([f'engine="{i}",num_gpu_blocks="200",block_size="16",kv_cache_size_tokens="1500"' for i in (0, 1)], 3000),
        (['num_gpu_blocks="None",block_size="16",kv_cache_size_tokens="None"'], None),
        (['num_gpu_blocks="²",block_size="16"'], None),
        ([f'num_gpu_blocks="{"9" * 5000}",block_size="16"'], None),
        ([], None),
    ],
)
def test_kv_capacity(lines: list[str], tokens: int | None) -> None:
    page = "".join(f"vllm:cache_config_info{{{line}}} 1.0\n" for line in lines)
    assert read_vllm(page).kv_capacity_tokens == tokens


def test_each_data_parallel_rank_of_sglang_counts_once() -> None:
    lines = [
        f'{name}{{model_name="m",tp_rank="{tp}",dp_rank="{dp}"}} {value}'
        for name, value in (
            ("sglang:num_running_reqs", 3),
            ("sglang:num_queue_reqs", 2),
            ("sglang:token_usage", 0.25),
            ("sglang:max_total_num_tokens", 1000),
        )
        for tp in (0, 1)
        for dp in (0, 1)
    ]
    sample = ExpositionReader(SGLANG).read("\n".join(lines) + "\n")
    assert sample.load == EngineLoad(waiting=4, running=6, kv_usage=0.25)
    assert sample.kv_capacity_tokens == 2000
    assert sample.missing == ()
    assert len(sample.progress) == 2


def test_an_engine_is_fresh_until_it_has_counted_some_tokens() -> None:
    page = 'vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_waiting{engine="0"} 0\n'
    counters = 'vllm:generation_tokens_total{engine="0"} 0\nvllm:prompt_tokens_total{engine="0"} %d\n'
    assert [read_vllm(page + counters % count).progress[0].fresh for count in (0, 256, 257)] == [True, True, False]
    assert not read_vllm(page).progress[0].fresh, "an engine that counts no tokens is judged by its steps alone"


def test_llamacpp_with_and_without_its_kv_gauge() -> None:
    page = (
        "llamacpp:prompt_tokens_total 10\nllamacpp:tokens_predicted_total 20\nllamacpp:n_decode_total 7\n"
        "llamacpp:requests_processing 1\nllamacpp:requests_deferred 3\n"
    )
    reader = ExpositionReader(LLAMACPP)
    sample = reader.read(page)
    assert sample.load == EngineLoad(waiting=3, running=1, kv_usage=0.0)
    assert sample.missing == ()
    assert sample.progress == (ReplicaProgress("", 4.0, (1.0, 3.0, 0.0, 20.0, 10.0, 0.0, 0.0, 7.0), fresh=True),)
    old = reader.read(page + "llamacpp:kv_cache_usage_ratio 0.5\n")
    assert old.load == EngineLoad(3, 1, 0.5)


def test_an_engine_without_metrics_misses_no_series() -> None:
    assert engine_metrics("unheard-of") is WITHOUT_METRICS
    assert ExpositionReader(WITHOUT_METRICS).read("anything 1\n") == EngineSample(load=None)
