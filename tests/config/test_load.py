"""Reading spillway.yaml: duplicate keys, relative paths, and the configuration in a variable."""

from __future__ import annotations

import base64
from datetime import date
from pathlib import Path

import pytest

from spillway_router.config.assemble import Assembly, assemble
from spillway_router.config.load import ConfigError, parse, read
from spillway_router.config.settings import Settings

BACKENDS = 'backends: [{name: local, provider: vllm, model: demo, base_url: "http://127.0.0.1:9/v1"}]\n'


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text, {})
    return [str(problem) for problem in raised.value.problems]


def test_a_key_that_occurs_twice_is_an_error_with_both_lines() -> None:
    text = f"privacy: {{default: local-only}}\n{BACKENDS}privacy:\n  default: any\n"
    assert problems_of(text) == ["line 3, privacy: duplicate key, first in line 1; keep one of the two"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('gpu: {price_per_hour: "1.39", count: 1, price_per_hour: "0"}\n', "gpu.price_per_hour"),
        ("backends:\n- {name: a, provider: vllm, model: m, base_url: 'http://x/v1', model: n}\n", "backends.0.model"),
        ("aliases: {auto: {chain: [local]}, auto: {chain: []}}\n", "aliases.auto"),
    ],
)
def test_duplicate_keys_are_found_at_every_depth(text: str, where: str) -> None:
    assert any(f"{where}: duplicate key" in problem for problem in problems_of(text))


def test_the_same_key_in_two_mappings_is_no_duplicate() -> None:
    assert parse("aliases: {a: {chain: [local]}, b: {chain: [local]}}\n", {}).aliases.keys() == {"a", "b"}


def test_relative_paths_count_from_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "etc" / "spillway.yaml"
    file.parent.mkdir()
    file.write_text(
        'ledger: {url: "sqlite:///books/x.db"}\nprices: {file: my/prices.json}\n'
        "confidence: {calibration: c.json}\ndocuments: {parsers: parsers}\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = read("etc/spillway.yaml", {}).settings
    assert settings.ledger.url == f"sqlite:///{file.parent}/books/x.db"
    assert settings.price_file == file.parent / "my" / "prices.json"
    assert settings.confidence.calibration == file.parent / "c.json"
    assert settings.documents.parsers == file.parent / "parsers"
    monkeypatch.chdir(file.parent)
    assert read(None, {}).settings == settings


def test_the_default_ledger_is_beside_the_file_and_without_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "etc" / "spillway.yaml"
    file.parent.mkdir()
    file.write_text(BACKENDS)
    monkeypatch.chdir(tmp_path)
    settings = read(str(file), {}).settings
    assert settings.ledger.url == f"sqlite:///{file.parent}/data/spillway.db"
    assert settings.price_file == file.parent / "data" / "prices.json"
    assert read(None, {}).settings.ledger.url == f"sqlite:///{tmp_path}/data/spillway.db"


@pytest.mark.parametrize("url", ["sqlite:////var/lib/x.db", "postgresql://u:p@h/d", "sqlite:///", "sqlite:///x/"])
def test_other_urls_stay_as_they_are(url: str, tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text(f'ledger: {{url: "{url}"}}\n')
    assert read(str(file), {}).settings.ledger.url == url


def test_a_ledger_in_the_working_directory_is_named_and_not_replaced_by_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, old = tmp_path / "etc" / "spillway.yaml", tmp_path / "data" / "spillway.db"
    for each in (file, old):
        each.parent.mkdir()
    file.write_text(BACKENDS)
    old.touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"Move it to .*/etc/data/spillway\.db") as raised:
        read(str(file), {})
    assert f'ledger: {{url: "sqlite:///{old}"}}' in str(raised.value)
    (file.parent / "data").mkdir()
    (file.parent / "data" / "spillway.db").touch()
    assert read(str(file), {}).settings.ledger.url == f"sqlite:///{file.parent}/data/spillway.db"


@pytest.mark.parametrize("encoded", [False, True])
def test_every_command_reads_the_configuration_in_the_variable(
    encoded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("listen: 127.0.0.1:9\n")
    text = 'listen: 127.0.0.1:7\nledger: {url: "sqlite:///books.db"}\n'
    value = {"SPILLWAY_YAML_BASE64": base64.encodebytes(text.encode()).decode()} if encoded else {"SPILLWAY_YAML": text}
    environment = {"SPILLWAY_CONFIG": str(tmp_path / "other.yaml"), **value}
    loaded = read(None, environment)
    assert (loaded.settings.listen, loaded.path) == ("127.0.0.1:7", None)
    assert loaded.settings.ledger.url == f"sqlite:///{tmp_path}/books.db"
    assert loaded.again().settings == loaded.settings
    assert read(str(tmp_path / "other.yaml"), environment).settings.listen == "127.0.0.1:9"


def test_a_variable_that_is_no_base64_is_an_error() -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read(None, {"SPILLWAY_YAML_BASE64": "listen: 1"})


def test_a_providers_key_may_come_from_a_file_that_each_reload_reads(tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text("backends: [{name: g, provider: groq, model: openai/gpt-oss-20b, api_key_file: groq.key}]\n")
    for key in ("gsk_first_key_of_nobody", "gsk_second_key_of_nobody"):
        (tmp_path / "groq.key").write_text(f"{key}\n")
        assembly = assemble(read(str(file), {}).settings, {}, date(2026, 11, 28))
        assert isinstance(assembly, Assembly)
        assert assembly.targets["g"].secrets == (key,)
    (tmp_path / "groq.key").unlink()
    lacking = assemble(read(str(file), {}).settings, {}, date(2026, 11, 28))
    assert isinstance(lacking, Assembly)
    assert "can't read api_key_file" in lacking.disabled[0].problem


def number_settings() -> list[str]:
    """Return a line for each setting of a group that may be a number, with VALUE in the number's place."""
    schema = Settings.model_json_schema()
    lines = []
    for group, reference in schema["properties"].items():
        part = schema["$defs"].get(str(reference.get("$ref", "")).rpartition("/")[2], {})
        for name, setting in part.get("properties", {}).items():
            if any(one.get("type") in ("number", "integer") for one in (setting, *setting.get("anyOf", ()))):
                lines.append(f"{group}: {{{name}: VALUE}}")
    return lines


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "true", "no", "010", "1:30"])
def test_no_setting_takes_what_is_no_number_has_no_end_or_looks_like_another_number(value: str) -> None:
    backend = "backends: [{name: a, provider: vllm, model: m, stall_s: VALUE}]"
    lines = number_settings()
    assert len(lines) > 30
    for line in (*lines, backend, backend.replace("stall_s", "prefill_tokens_per_s")):
        assert problems_of(f"{line.replace('VALUE', value)}\n"), line


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits: {in_flight: true}", "line 1, limits.in_flight: must be a whole number, as in in_flight: 3"),
        ("slo: {ttft_ms: yes}", "line 1, slo.ttft_ms: must be a number, as in ttft_ms: 2.5"),
        (
            "budgets: [{scope: all, period: day, limit_usd: 050}]",
            "line 1, budgets.0.limit_usd: YAML reads a number that begins with 0 to the base of 8, so that 010 is 8; "
            "write it without that 0",
        ),
        (
            "report: {morning: {at: 10:30}}",
            "line 1, report.morning.at: YAML reads a number with colons to the base of 60, so that 1:30 is 90; "
            "put quotes around a time",
        ),
    ],
)
def test_a_value_that_yaml_turns_into_another_number_is_one_error(text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_numbers_that_mean_what_they_look_like_are_read() -> None:
    settings = parse('limits: {in_flight: 1_000}\ngpu: {count: 0x10, price_per_hour: 0.50}\nslo: {ttft_ms: "080"}', {})
    assert (settings.limits.in_flight, settings.gpu.count) == (1000, 16)
    assert (str(settings.gpu.price_per_hour), settings.slo.ttft_ms) == ("0.5", 80)


@pytest.mark.parametrize("setting", ["context_tokens", "max_output_tokens"])
def test_a_context_that_no_ledger_could_hold_the_cost_of_is_an_error(setting: str) -> None:
    line = f"backends: [{{name: a, provider: vllm, model: m, base_url: 'http://127.0.0.1:9/v1', {setting}: {10**30}}}]"
    assert problems_of(line) == [f"line 1, backends.0.{setting}: must be at most 100000000; change it"]


@pytest.mark.parametrize(
    "gpu", ['{price_per_hour: "1000000"}', '{price_per_hour: "100", count: 1001}', '{price_per_month: "100000000"}']
)
def test_a_price_of_gpus_that_would_overflow_the_ledgers_sums_is_an_error(gpu: str) -> None:
    assert problems_of(f"gpu: {gpu}") == [
        "line 1, gpu: all GPUs together cost more than 100,000 USD per hour; check the price"
    ]
    assert parse('gpu: {price_per_hour: "90", count: 1024}', {}).gpu.count == 1024


@pytest.mark.parametrize("left", ["", "# all settings were here\n\n"])
def test_a_file_that_has_become_empty_is_no_configuration(left: str, tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text("keys: {required: true}\n")
    loaded = read(str(file), {})
    file.write_text(left)
    with pytest.raises(ConfigError, match="has become empty; write it again"):
        loaded.again()
    file.write_text("listen: 127.0.0.1:8081\n")
    assert loaded.again().settings.port == 8081
    file.write_text("")
    assert read(str(file), {}).again().settings == read(str(file), {}).settings
