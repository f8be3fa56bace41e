"""The ladder's own formats: blocks carried over weight by weight, fitted groups, digits that stand alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.conftest import ROOT

from spillway_server.planning.models import DEMO_WEIGHTS

CONVERT_PYTHON = ROOT / ".venv-convert" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not CONVERT_PYTHON.exists(), reason="the environment .venv-convert is missing: run `make install-convert`"
)


def output(*words: str) -> str:
    """Run the converter's Python; return the last line that it prints."""
    environment = {"PYTHONPATH": str(ROOT / "server"), "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [str(CONVERT_PYTHON), *words], capture_output=True, text=True, timeout=240, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-800:]
    return done.stdout.strip().splitlines()[-1]


def test_blocks_of_q8_and_q4_are_carried_over_exactly(tmp_path: Path) -> None:
    demo = DEMO_WEIGHTS / "gguf" / "spillway-demo-F16.gguf"
    counts = json.loads(output(str(Path(__file__).with_name("carried.py")), str(demo), str(tmp_path)))
    assert set(counts) == {"Q8_0 in 8 bits", "Q4_0 in 4 bits", "Q4_0 in 8 bits"}
    for row in counts.values():
        assert row["weights"] > 1_000_000
        assert row["differ"] == 0


def test_a_fitted_group_is_no_worse_than_rounding_to_its_ends() -> None:
    script = (
        "import torch\n"
        "from spillway_server.convert.worker.carry import _least_squares\n"
        "torch.manual_seed(3)\n"
        "groups = torch.cat([torch.randn(500, 32) + 0.5, torch.rand(500, 32) * 3 - 1, torch.zeros(2, 32)])\n"
        "integers, scales, zeros = _least_squares(groups, 15)\n"
        "fitted = (groups - scales * (integers - zeros)).square().sum(1)\n"
        "low, high = groups.amin(1, True).clamp(max=0), groups.amax(1, True).clamp(min=0)\n"
        "scale = ((high - low) / 15).clamp(min=1e-8)\n"
        "zero = torch.round(-low / scale)\n"
        "plain = (groups - scale * ((torch.round(groups / scale) + zero).clamp(0, 15) - zero)).square().sum(1)\n"
        "inside = bool(((integers >= 0) & (integers <= 15)).all())\n"
        "print(inside, float(fitted.sum() / plain.sum()), float(fitted[-2:].sum()))\n"
    )
    inside, ratio, nothing = output("-c", script).split()
    assert inside == "True"
    assert float(ratio) < 0.95
    assert float(nothing) == 0.0


def test_rules_cut_as_the_published_tokenizers_do() -> None:
    script = (
        "import json\n"
        "from tokenizers import pre_tokenizers\n"
        "from spillway_server.convert.formats import SPLIT_RULES\n"
        "from spillway_server.convert.worker.vocabulary import cuts\n"
        "def pieces(name):\n"
        "    sequence = pre_tokenizers.Sequence(cuts(SPLIT_RULES[name]))\n"
        '    return [piece for piece, _ in sequence.pre_tokenize_str("It\'s 1234 lots")]\n'
        "print(json.dumps({name: pieces(name) for name in ('smollm', 'llama-bpe', 'qwen2', 'gpt-2')}))\n"
    )
    assert json.loads(output("-c", script)) == {
        "smollm": ["It", "'s", "Ġ", "1", "2", "3", "4", "Ġlots"],
        "llama-bpe": ["It", "'s", "Ġ", "123", "4", "Ġlots"],
        "qwen2": ["It", "'s", "Ġ", "1", "2", "3", "4", "Ġlots"],
        "gpt-2": ["It", "'s", "Ġ1234", "Ġlots"],
    }


def test_unigram_vocabularies_are_rebuilt(tmp_path: Path) -> None:
    script = (
        "import sys, gguf\n"
        "from pathlib import Path\n"
        "from spillway_server.convert.worker import header, vocabulary\n"
        "writer = gguf.GGUFWriter(sys.argv[1], 'llama')\n"
        "pieces = ['<unk>', '</s>', '▁the', '▁cat', 's', '▁', 't', 'h', 'e', 'c', 'a']\n"
        "writer.add_tokenizer_model('t5')\n"
        "writer.add_token_list(pieces)\n"
        "writer.add_token_scores([0.0, 0.0, -1.0, -2.0, -3.0, -4.0, *[-8.0] * 5])\n"
        "writer.add_token_types([2, 3, *[1] * 9])\n"
        "writer.add_unk_token_id(0)\n"
        "writer.add_tensor('token_embd.weight', __import__('numpy').zeros((11, 4), 'float32'))\n"
        "writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file()\n"
        "writer.close()\n"
        "tokenizer = vocabulary.build(header.open_gguf(Path(sys.argv[1])))\n"
        "ids = tokenizer.encode('the  cats').ids\n"
        "print([pieces[i] for i in ids], '|', tokenizer.decode(ids))\n"
    )
    assert output("-c", script, str(tmp_path / "u.gguf")) == "['▁the', '▁cat', 's'] | the cats"
