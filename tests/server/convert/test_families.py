"""Every family that can be unpacked: a random model through GGUF and back gives the same logits."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.conftest import ROOT

LLAMA_PYTHON = ROOT / ".venv-llama" / "bin" / "python"
CONVERT_PYTHON = ROOT / ".venv-convert" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not CONVERT_PYTHON.exists(), reason="the environment .venv-convert is missing: run `make install-convert`"
)


def test_logits_survive_the_way_through_gguf(tmp_path: Path) -> None:
    script = Path(__file__).with_name("family_round_trip.py")
    done = subprocess.run(
        [str(CONVERT_PYTHON), str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PYTHONPATH": str(ROOT / "server"), "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert done.returncode == 0, done.stderr[-800:]
    differences = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(differences) == 16
    assert max(differences.values()) < 1e-4, differences


_LLAMA_LOGITS = (
    "import json, sys; import numpy as np; from llama_cpp import Llama, llama_cpp as lib\n"
    "stock = lib.llama_model_default_params\n"
    "def plain():\n"
    "    parameters = stock(); parameters.use_extra_bufts = False; return parameters\n"
    "lib.llama_model_default_params = plain\n"
    "rows = {}\n"
    "for path in sys.argv[1:]:\n"
    "    model = Llama(path, n_ctx=64, logits_all=True, verbose=False)\n"
    "    model.eval([number * 7 % 300 for number in range(40)])\n"
    "    rows[path] = np.asarray(model.scores[:40]).tolist()\n"
    "print(json.dumps(rows))"
)
_OUR_DIFFERENCE = (
    "import json, sys; import torch; from transformers import AutoModelForCausalLM\n"
    "ids = torch.arange(40).reshape(1, 40) * 7 % 300\n"
    "worst = {}\n"
    "for path, rows in json.load(sys.stdin).items():\n"
    "    model = AutoModelForCausalLM.from_pretrained(path.removesuffix('.gguf'), dtype=torch.float32).eval()\n"
    "    with torch.inference_mode(): logits = model(ids).logits[0]\n"
    "    theirs = torch.tensor(rows)\n"
    "    equal = float((logits.argmax(1) == theirs.argmax(1)).float().mean())\n"
    "    worst[path] = [float((logits - theirs).abs().max() / logits.abs().max()), equal]\n"
    "print(json.dumps(worst))"
)


def test_mixtures_of_experts_give_llama_cpps_logits(tmp_path: Path) -> None:
    """llama.cpp reads the file by itself: it knows whether the chosen experts' weights add up to 1."""
    if not LLAMA_PYTHON.exists():
        pytest.skip("llama.cpp (.venv-llama) is not installed: nothing else reads the file independently")
    families = ("qwen2moe", "qwen3moe", "olmoe", "mixtral")
    environ = {"PYTHONPATH": str(ROOT / "server"), "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    script = str(Path(__file__).with_name("family_round_trip.py"))
    files = [str(tmp_path / f"{family}-False.gguf") for family in families]
    said = ""
    for command in (
        [str(CONVERT_PYTHON), script, str(tmp_path), *families],
        [str(LLAMA_PYTHON), "-c", _LLAMA_LOGITS, *files],
        [str(CONVERT_PYTHON), "-c", _OUR_DIFFERENCE],
    ):
        done = subprocess.run(
            command, input=said, capture_output=True, text=True, timeout=300, check=False, env=environ
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-800:]
        said = done.stdout.strip().splitlines()[-1]
    worst = json.loads(said)
    assert len(worst) == len(families)
    for path, (difference, equal) in worst.items():
        assert difference < 2e-3, path
        assert equal == 1.0, path


def test_llama_3s_frequencies_are_recognised_and_others_refused(tmp_path: Path) -> None:
    script = (
        "import math\n"
        "from spillway_server.convert.worker.header import llama3_scaling\n"
        "from spillway_server.convert.worker.report import JobError\n"
        "def divisors(factor):\n"
        "    made = []\n"
        "    for i in range(64):\n"
        "        wave = 2 * math.pi * 500000.0 ** (2 * i / 128)\n"
        "        if wave < 2048: made.append(1.0)\n"
        "        elif wave > 8192: made.append(factor)\n"
        "        else:\n"
        "            smooth = (8192 / wave - 1) / 3\n"
        "            made.append(1 / ((1 - smooth) / factor + smooth))\n"
        "    return made\n"
        "assert llama3_scaling(divisors(8.0), 500000.0, 128)['factor'] == 8.0\n"
        "assert llama3_scaling(divisors(32.0), 500000.0, 128)['factor'] == 32.0\n"
        "try: llama3_scaling([1.0] * 32 + [4.0] * 32, 500000.0, 128)\n"
        "except JobError as error: print('refused', error.reason)\n"
    )
    done = subprocess.run(
        [str(CONVERT_PYTHON), "-c", script], capture_output=True, text=True, timeout=120, check=False,
        env={"PYTHONPATH": str(ROOT / "server")},
    )  # fmt: skip
    assert done.stdout.startswith("refused"), done.stderr


_LLAMA_IDS = (
    "import json, sys; from llama_cpp import Llama; m = Llama(sys.argv[1], vocab_only=True, verbose=False); "
    "print(json.dumps([m.tokenize(t.encode(), add_bos=False, special=False) for t in json.load(sys.stdin)]))"
)


def test_sentencepiece_is_rebuilt_as_llama_cpp_reads_it(tmp_path: Path) -> None:
    if not LLAMA_PYTHON.exists():
        pytest.skip("llama.cpp (.venv-llama) is not installed: nothing else reads the file independently")
    texts = ["the cat", "that hat, over there.", "two  blanks", "café ☃", "the\nother", "x", "ththethethat"]
    script, place = Path(__file__).with_name("vocabulary_round_trip.py"), tmp_path / "vocabulary.gguf"
    commands = (
        [str(CONVERT_PYTHON), str(script), str(place)],
        [str(LLAMA_PYTHON), "-c", _LLAMA_IDS, str(place)],
    )
    said = []
    for command in commands:
        done = subprocess.run(
            command,
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PYTHONPATH": str(ROOT / "server")},
        )
        assert done.returncode == 0, done.stderr[-800:]
        said.append(json.loads(done.stdout.strip().splitlines()[-1]))
    ours, theirs = said
    assert ours["ids"] == theirs
    assert ours["texts"] == texts
    assert ours["with_start"] == 1
