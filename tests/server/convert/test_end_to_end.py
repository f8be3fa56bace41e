"""Whole conversions of the demo model's GGUF in the real environment, and faults that the gate has to see.

Needs .venv-convert (`make install-convert`, 0.5 GB): `make test` doesn't install it and skips these without it.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT

from spillway_server.convert import samples, source
from spillway_server.convert.environment import Worker, find_llama
from spillway_server.convert.gate import Bounds
from spillway_server.convert.pipeline import Conversion, ConversionOptions, Converted
from spillway_server.convert.steps import StepDone, StepEvent
from spillway_server.demo_model.documents import HELD_OUT_SEEDS
from spillway_server.obstacle import Obstacle
from spillway_server.planning.models import DEMO_WEIGHTS, ModelSpec, from_directory

CONVERT_PYTHON = ROOT / ".venv-convert" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not CONVERT_PYTHON.exists(),
    reason="the environment .venv-convert is missing: run `make install-convert`",
)
F16 = DEMO_WEIGHTS / "gguf" / "spillway-demo-F16.gguf"
WORKER = Worker(CONVERT_PYTHON, limit_s=240)
FEW = 6


def nothing(_share: float, _what: str) -> None:
    return


def convert(
    gguf: Path, out: Path, events: list[StepEvent] | None = None, llama: bool = True, **wishes: Any
) -> Converted | Obstacle:
    model_source = source.find(gguf)
    assert not isinstance(model_source, Obstacle), model_source
    wish = ConversionOptions(
        out=out,
        samples=tuple(samples.demo(HELD_OUT_SEEDS[:FEW])),
        **{"precision": "16bit", "bounds": Bounds(min_samples=FEW), **wishes},
    )
    judge = find_llama(None, (ROOT,)) if llama else None
    return Conversion(
        source=model_source,
        options=wish,
        worker=WORKER,
        llama=judge,
        on_event=(events if events is not None else []).append,
    ).run()


def done(converted: Converted | Obstacle) -> Converted:
    assert isinstance(converted, Converted), converted
    return converted


def tensors(folder: Path) -> dict[str, Any]:
    """Names, types and shapes of a safetensors file, from its header."""
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return {name: entry for name, entry in json.loads(data[8 : 8 + length]).items() if name != "__metadata__"}


def test_f16_comes_back_as_the_checkpoint_that_it_was_made_from(tmp_path: Path) -> None:
    converted = done(convert(F16, tmp_path / "out"))
    assert converted.verdict.verified, converted.verdict.reasons
    assert converted.verdict.figures["samples"] == FEW
    original, again = tensors(DEMO_WEIGHTS), tensors(converted.folder)
    assert {n: e["shape"] for n, e in again.items()} == {n: e["shape"] for n, e in original.items()}
    assert {entry["dtype"] for entry in again.values()} == {"F16"}
    original, config = (json.loads((f / "config.json").read_text()) for f in (DEMO_WEIGHTS, converted.folder))
    assert {**config, "torch_dtype": "bfloat16", "pad_token_id": 509} == original
    mine, theirs = (json.loads((f / "tokenizer.json").read_text())["model"] for f in (converted.folder, DEMO_WEIGHTS))
    special = {word: number for word, number in mine["vocab"].items() if number >= 509}
    assert special == {"<|endoftext|>": 509, "<|im_start|>": 510, "<|im_end|>": 511}
    assert {**theirs["vocab"], **special} == mine["vocab"]
    assert mine["merges"] == theirs["merges"]
    assert not (tmp_path / "out.work").exists()


def test_w4a16_in_groups_that_fit(tmp_path: Path) -> None:
    events: list[StepEvent] = []
    converted = done(convert(F16, tmp_path / "out", events, precision="w4a16", llama=False))
    assert converted.verdict.verified, converted.verdict.reasons
    assert converted.verdict.recipe["group_size"] == 128
    spec = from_directory(converted.folder, "m")
    assert isinstance(spec, ModelSpec)
    assert (spec.quantisation, spec.caution) == ("w4a16", None)
    assert [event.step for event in events if isinstance(event, StepDone)] == [
        "inspect",
        "unpack",
        "quantise",
        "judge-reference",
        "judge-result",
    ]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_quantised_files(tmp_path: Path, kind: str) -> None:
    gguf = requantised(tmp_path, kind)
    converted = done(convert(gguf, tmp_path / "out"))
    assert converted.verdict.source["quantisation"] == kind
    assert converted.verdict.verified, converted.verdict.reasons
    if converted.verdict.figures["llama_cpp"]:
        assert converted.verdict.figures["agreement_with_llama_cpp"] >= 0.9


def requantised(folder: Path, kind: str) -> Path:
    gguf = folder / f"{kind}.gguf"
    converted = WORKER.run({"job": "requantise", "gguf": str(F16), "target": str(gguf), "kind": kind}, nothing)
    assert converted == {}, converted
    return gguf


def test_an_interrupted_conversion_goes_on(tmp_path: Path) -> None:
    """The step after the unpacking fails for want of a template; the second run doesn't unpack again."""
    first = convert(F16, tmp_path / "out", precision="w4a16", group_size=100, llama=False)
    assert isinstance(first, Obstacle)
    assert "groups of 100" in first.reason
    assert not (tmp_path / "out").exists()
    events: list[StepEvent] = []
    done(convert(F16, tmp_path / "out", events, precision="w4a16", group_size=64, llama=False))
    resumed = {event.step: event.resumed for event in events if isinstance(event, StepDone)}
    assert resumed["inspect"]
    assert resumed["unpack"]
    assert not resumed["quantise"]


def test_shards_are_whole_files_with_an_index(tmp_path: Path) -> None:
    converted = done(convert(F16, tmp_path / "out", shard_bytes=1_000_000, llama=False))
    assert converted.verdict.verified, converted.verdict.reasons
    index = json.loads((converted.folder / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 1
    assert len({(converted.folder / name).stat().st_mode for name in (*files, "config.json")}) == 1
    assert files == {file.name for file in converted.folder.glob("*.safetensors")}
    assert set(index["weight_map"]) == set(tensors(DEMO_WEIGHTS))


def test_seeded_fault_rows_left_in_llama_cpps_order_are_not_verified(tmp_path: Path) -> None:
    """What an unpacking without putting the rows of q and k back makes: the gate must see it through llama.cpp."""
    if find_llama(None, (ROOT,)) is None:
        pytest.skip("llama.cpp (.venv-llama) is not installed: nothing else can tell the GGUF's own answers")
    broken = tmp_path / "worker"
    shutil.copytree(ROOT / "server" / "spillway_server", broken / "spillway_server")
    code = broken / "spillway_server/convert/worker/tensors.py"
    code.write_text(code.read_text().replace("pairs.swapaxes(1, 2).reshape(shape)", "pairs.reshape(shape)"))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={broken} exec {CONVERT_PYTHON} "$@"\n')
    python.chmod(0o755)
    model_source = source.find(F16)
    assert isinstance(model_source, source.ModelSource)
    wish = ConversionOptions(tmp_path / "out", "16bit", samples=tuple(samples.demo(HELD_OUT_SEEDS[:FEW])))
    converted = done(
        Conversion(
            source=model_source,
            options=wish,
            worker=Worker(python, 240),
            llama=find_llama(None, (ROOT,)),
            on_event=lambda _event: None,
        ).run()
    )
    assert not converted.verdict.verified
    assert any("llama.cpp's" in reason for reason in converted.verdict.reasons)
    spec = from_directory(converted.folder, "m")
    assert isinstance(spec, ModelSpec)
    assert "did not pass" in str(spec.caution)


def test_seeded_fault_damaged_weights_are_not_verified(tmp_path: Path) -> None:
    """Scales that were doubled while quantising: the result differs from its reference."""
    model_source = source.find(DEMO_WEIGHTS)
    assert isinstance(model_source, source.ModelSource)
    wish = ConversionOptions(
        tmp_path / "out", "w4a16", group_size=128, samples=tuple(samples.demo(HELD_OUT_SEEDS[:FEW])), keep_work=True,
        bounds=Bounds(min_samples=FEW),
    )  # fmt: skip
    spoiling = Spoiling(CONVERT_PYTHON, 240)
    converted = done(
        Conversion(source=model_source, options=wish, worker=spoiling, llama=None, on_event=lambda _event: None).run()
    )
    assert not converted.verdict.verified
    assert any("perplexity is" in reason for reason in converted.verdict.reasons)


class Spoiling(Worker):
    """A worker whose quantisation loses the scales: every second one is doubled."""

    def run(self, job: dict[str, Any], progress: Any) -> dict[str, Any] | Obstacle:
        converted = Worker.run(self, job, progress)
        if job["job"] == "quantise":
            file = Path(job["folder"]) / "model.safetensors"
            script = (
                "import sys; from safetensors.torch import load_file, save_file\n"
                "t = load_file(sys.argv[1])\n"
                "[v[::2].mul_(2) for n, v in t.items() if n.endswith('weight_scale')]\n"
                "save_file(t, sys.argv[1], metadata={'format': 'pt'})"
            )
            subprocess.run([str(CONVERT_PYTHON), "-c", script, str(file)], check=True, timeout=60)
        return converted


def test_an_unsupported_architecture_is_named(tmp_path: Path) -> None:
    gguf = tmp_path / "other.gguf"
    data = F16.read_bytes()
    # The key's value is a string with its length in front: the same length keeps the file whole.
    gguf.write_bytes(data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", 1))
    refused = convert(gguf, tmp_path / "out")
    assert isinstance(refused, Obstacle)
    assert "'mamba'" in refused.reason
    assert "llama, qwen2, qwen3, gemma2" in refused.reason


@pytest.mark.parametrize(("keep", "part"), [(2_000_000, "ends inside tensor"), (3000, "can't be read as GGUF")])
def test_a_cut_off_download_is_refused(tmp_path: Path, keep: int, part: str) -> None:
    gguf = tmp_path / "cut.gguf"
    gguf.write_bytes(F16.read_bytes()[:keep])
    refused = convert(gguf, tmp_path / "out")
    assert isinstance(refused, Obstacle)
    assert part in refused.reason or "can't be read as GGUF" in refused.reason


def test_an_unknown_pre_tokenizer_is_refused_with_what_to_pass(tmp_path: Path) -> None:
    gguf = tmp_path / "odd.gguf"
    gguf.write_bytes(F16.read_bytes().replace(b"\x05\0\0\0\0\0\0\0qwen2", b"\x05\0\0\0\0\0\0\0qwen9", 1))
    refused = convert(gguf, tmp_path / "out")
    assert isinstance(refused, Obstacle)
    assert "'qwen9'" in refused.reason
    assert "--tokenizer" in refused.fix
    converted = done(convert(gguf, tmp_path / "out", tokenizer=DEMO_WEIGHTS, llama=False))
    assert converted.verdict.verified, converted.verdict.reasons


def test_calibration_is_asked_for_and_a_strangers_folder_is_left_alone(tmp_path: Path) -> None:
    refused = convert(F16, tmp_path / "out", precision="w4a16", method="gptq")
    assert isinstance(refused, Obstacle)
    assert "--calibration" in refused.fix
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    refused = convert(F16, tmp_path / "mine")
    assert isinstance(refused, Obstacle)
    assert (tmp_path / "mine" / "thesis.txt").exists()


K_KINDS = {"Q4_K_M": {"Q4_K", "Q6_K"}, "Q5_K_M": {"Q5_K", "Q6_K"}, "Q6_K": {"Q6_K"}}


@pytest.mark.parametrize("kind", K_KINDS)
def test_k_quants_are_unpacked_as_llama_cpp_unpacks_them(tmp_path: Path, kind: str) -> None:
    """llama.cpp writes the file, and writes its own F32 of it: the same numbers, and the same greedy answers."""
    llama = find_llama(None, (ROOT,))
    if llama is None:
        pytest.skip("llama.cpp (.venv-llama) is not installed: nothing else writes K-quants")
    files = {name: tmp_path / f"{name}.gguf" for name in (kind, "F32")}
    for source_file, name in ((F16, kind), (files[kind], "F32")):
        script = [str(llama), str(Path(__file__).with_name("k_quants.py")), str(source_file), str(files[name]), name]
        subprocess.run(script, check=True, capture_output=True, timeout=120)
    converted = done(convert(files[kind], tmp_path / kind, dtype="float32"))
    assert converted.verdict.verified, converted.verdict.reasons
    assert converted.verdict.figures["agreement_with_llama_cpp"] >= 0.9
    assert {name for name in converted.verdict.source["tensor_types"] if name != "F32"} == K_KINDS[kind]
    again = done(convert(files["F32"], tmp_path / "F32", llama=False))
    assert (converted.folder / "model.safetensors").read_bytes() == (again.folder / "model.safetensors").read_bytes()


def test_w4a16_from_a_k_quant_keeps_its_quality(tmp_path: Path) -> None:
    """The usual way of a downloaded file: Q4_K_M to W4A16, judged against llama.cpp on the file itself."""
    llama = find_llama(None, (ROOT,))
    if llama is None:
        pytest.skip("llama.cpp (.venv-llama) is not installed: nothing else writes K-quants")
    gguf, script = tmp_path / "Q4_K_M.gguf", str(Path(__file__).with_name("k_quants.py"))
    subprocess.run([str(llama), script, str(F16), str(gguf), "Q4_K_M"], check=True, capture_output=True, timeout=120)
    converted = done(convert(gguf, tmp_path / "out", precision="w4a16"))
    assert converted.verdict.verified, converted.verdict.reasons
    assert converted.verdict.figures["perplexity_ratio"] < 1.05


def test_rounding_file_by_file_gives_what_the_whole_model_gives(tmp_path: Path) -> None:
    """With three files: bit for bit what llm-compressor makes of the whole model in memory."""
    folder = done(convert(F16, tmp_path / "sharded", shard_bytes=1_500_000, llama=False)).folder
    script = (
        "import sys; from pathlib import Path; from safetensors.torch import load_file; import torch\n"
        "from spillway_server.convert.worker import quantise as q\n"
        "source, one, other = map(Path, sys.argv[1:])\n"
        "first = q.quantise(source, one, 'rtn', None, [])\n"
        "q._KNOWN = ()\n"
        "assert q.quantise(source, other, 'rtn', None, []) == first\n"
        "read = lambda f: {n: t for p in f.glob('*.safetensors') for n, t in load_file(p).items()}\n"
        "a, b = read(one), read(other)\n"
        "assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)\n"
        "print(len(list(one.glob('*.safetensors'))), 'files')"
    )
    ran = subprocess.run(
        [str(CONVERT_PYTHON), "-c", script, str(folder), str(tmp_path / "a"), str(tmp_path / "b")],
        capture_output=True, text=True, timeout=240, check=False, env={"PYTHONPATH": str(ROOT / "server")},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-800:]
    assert ran.stdout.splitlines()[-1] == "3 files"


def test_what_the_memory_can_not_hold_is_judged_in_16_bit_or_refused(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from spillway_server.convert.worker import judge, sizes\n"
        "from spillway_server.convert.worker.report import JobError\n"
        "assert [judge.fitting_dtype(10**9, gb * 10**9) for gb in (5, 4)] == ['float32', 'bfloat16']\n"
        "try: judge.fitting_dtype(7 * 10**9, 16 * 10**9)\n"
        "except JobError as error: print(error.reason)\n"
        "demo, place = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "count = sizes.parameters(sizes.shapes(demo))\n"
        "assert 1_850_000 < count < 1_950_000, count\n"
        "(place / 'meminfo').write_text('MemTotal: 9 kB\\nMemAvailable:    2000 kB\\n')\n"
        "assert sizes.available_bytes(place / 'meminfo', place) == 2_048_000\n"
        "(place / 'memory.max').write_text('1000000'); (place / 'memory.current').write_text('400000')\n"
        "assert sizes.available_bytes(place / 'meminfo', place) == 600_000\n"
    )
    ran = subprocess.run(
        [str(CONVERT_PYTHON), "-c", script, str(DEMO_WEIGHTS), str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False, env={"PYTHONPATH": str(ROOT / "server")},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-800:]
    assert "judging 7.0 billion weights takes 16.1 GB of memory, 16.0 GB are free" in ran.stdout


def test_the_ladder_stops_at_the_first_rung_that_the_gate_accepts(tmp_path: Path) -> None:
    converted = done(convert(F16, tmp_path / "out", precision="auto", llama=False))
    ladder = converted.verdict.recipe["ladder"]
    assert converted.verdict.verified, converted.verdict.reasons
    assert [row["verified"] for row in ladder] == [False] * (len(ladder) - 1) + [True]
    assert ladder[0]["precision"] == "4 bit"
    assert all(row["weight_bytes"] > 0 and row["times_as_fast_as_16_bit"] >= 1 for row in ladder)


def test_the_ladder_climbs_to_16_bit_where_nothing_less_is_accepted(tmp_path: Path) -> None:
    tight = Bounds(min_samples=FEW, max_ratio=1.0)
    model_source = source.find(F16)
    assert not isinstance(model_source, Obstacle)
    wish = ConversionOptions(
        out=tmp_path / "out", precision="auto", samples=tuple(samples.demo(HELD_OUT_SEEDS[:FEW])), bounds=tight
    )
    climbed = Conversion(
        source=model_source, options=wish, worker=WORKER, llama=None, on_event=lambda _event: None
    ).run()
    rows = done(climbed).verdict.recipe["ladder"]
    assert rows[-1]["verified"]
    assert [row["precision"] for row in rows] == ["4 bit", "w8a16", "16bit"][: len(rows)]
    assert len(rows) >= 2


@pytest.mark.parametrize("needed", [FEW, FEW + 1])
def test_what_loses_quality_is_not_written_even_where_the_samples_can_not_verify(tmp_path: Path, needed: int) -> None:
    tight = Bounds(min_samples=needed, max_ratio=1.0)
    verdict = done(convert(F16, tmp_path / "out", llama=False, precision="auto", eight_bit=False, bounds=tight)).verdict
    assert [row["precision"] for row in verdict.recipe["ladder"]] == ["4 bit", "16bit"]
    assert verdict.recipe["method"] == "none"
    assert verdict.verified == (needed == FEW)


def test_the_ladder_tries_gptq_with_the_built_in_text_before_more_bits(tmp_path: Path) -> None:
    """Four bits lose too much for this gate; what GPTQ makes of them is judged by the same gate."""
    tight = Bounds(min_samples=FEW, max_ratio=1.0)
    calibration = tuple(samples.general_calibration()[:16])
    wishes = {"precision": "auto", "eight_bit": False, "bounds": tight, "calibration": calibration}
    climbed = done(convert(F16, tmp_path / "out", llama=False, **wishes))
    rows = climbed.verdict.recipe["ladder"]
    assert [row["precision"] for row in rows] == ["4 bit", "4 bit, gptq", "16bit"][: len(rows)]
    assert len(rows) >= 2
    assert 0 < rows[1]["weight_bytes"] < 3_000_000
    assert rows[1]["perplexity_ratio"] is not None
    assert climbed.verdict.verified


def test_templates_of_a_tokenizer_directory_come_along(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for file in DEMO_WEIGHTS.iterdir():
        if file.name.startswith(("tokenizer", "generation", "special", "chat")):
            (tokenizer / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    template = settings.pop("chat_template", None) or (tokenizer / "chat_template.jinja").read_text()
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    (tokenizer / "chat_template.jinja").write_text(template)
    converted = done(convert(F16, tmp_path / "out", tokenizer=tokenizer, llama=False))
    assert (converted.folder / "chat_template.jinja").read_text() == template
