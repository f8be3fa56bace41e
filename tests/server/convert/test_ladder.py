"""Which precisions the ladder tries, and the text that ships for the one that calibrates."""

from __future__ import annotations

from pathlib import Path

import pytest

from spillway_server.convert import samples, source
from spillway_server.convert.environment import Worker
from spillway_server.convert.pipeline import LARGEST_FOR_GPTQ, Conversion, ConversionOptions
from spillway_server.obstacle import Obstacle
from spillway_server.planning.models import DEMO_WEIGHTS

F16 = DEMO_WEIGHTS / "gguf" / "spillway-demo-F16.gguf"
TEXT = tuple(samples.general_calibration())


def climb(options: ConversionOptions) -> Conversion:
    model = source.find(F16)
    assert not isinstance(model, Obstacle)
    worker = Worker(Path("python-that-is-not-asked"))
    return Conversion(source=model, options=options, worker=worker, llama=None, on_event=lambda _event: None)


@pytest.mark.parametrize(
    ("options", "plain_bytes", "rungs"),
    [
        ({"calibration": TEXT}, 1, ("4 bit", "4 bit, gptq", "w8a16", "16bit")),
        ({"calibration": TEXT}, LARGEST_FOR_GPTQ[False] + 1, ("4 bit", "w8a16", "16bit")),
        ({"calibration": TEXT, "has_gpu": True}, LARGEST_FOR_GPTQ[True], ("4 bit", "4 bit, gptq", "w8a16", "16bit")),
        ({"calibration": TEXT, "has_gpu": True}, LARGEST_FOR_GPTQ[True] + 1, ("4 bit", "w8a16", "16bit")),
        ({}, 1, ("4 bit", "w8a16", "16bit")),
        ({"calibration": TEXT, "eight_bit": False}, 1, ("4 bit", "4 bit, gptq", "16bit")),
        ({"calibration": TEXT, "precision": "w4a16"}, 1, ("w4a16",)),
    ],
)
def test_gptq_comes_after_four_bits_without_data(
    options: dict[str, object], plain_bytes: int, rungs: tuple[str, ...], tmp_path: Path
) -> None:
    wish = ConversionOptions(out=tmp_path / "out", **{"precision": "auto", **options})  # type: ignore[arg-type]
    assert climb(wish).rungs(plain_bytes) == rungs


def test_the_built_in_text_is_varied_and_no_sample_of_the_gate() -> None:
    assert len(TEXT) == 128
    asked = {sample["messages"][0]["content"] for sample in TEXT if "messages" in sample}
    judged = samples.read(None, 10_000)
    assert not isinstance(judged, Obstacle)
    assert len(asked) >= 30
    assert not asked & {sample["messages"][0]["content"] for sample in judged if "messages" in sample}
    assert sum(len(sample.get("prompt", "")) for sample in TEXT) > 100_000


def test_a_mixture_of_experts_has_16_bit_alone(tmp_path: Path) -> None:
    conversion = climb(ConversionOptions(out=tmp_path / "out", precision="auto", calibration=TEXT))
    conversion.has_experts = True
    assert conversion.rungs(1) == ("16bit",)
