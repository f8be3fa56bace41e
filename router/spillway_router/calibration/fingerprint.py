"""Fingerprints of a model's files, because a calibration holds only for the weights and the chat template it used.

Hashing many gigabytes takes minutes, so the weights' fingerprint is a hash over each file's name and size and 64 KiB
from each of sixteen places spread over the file. That is enough, because any training changes nearly every byte.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

PLACES = 16
PIECE = 64 * 1024
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


class FingerprintError(Exception):
    """The folder contains no model; the message says what is missing."""


def fingerprint(folder: Path) -> dict[str, str]:
    """Return `weights` and `template`, each the first 16 hex digits of a SHA-256; `template` is "*" if there is none.

    Raises FingerprintError if the folder can't be read or contains no weights.
    """
    digest = hashlib.sha256()
    try:
        files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
        if not files:
            raise FingerprintError(f"{folder} contains no weights ({', '.join(WEIGHTS)}); name the model's folder")
        for path in files:
            digest.update(_pieces(path))
        return {"weights": digest.hexdigest()[:16], "template": _template(folder)}
    except OSError as error:
        raise FingerprintError(f"{folder} can't be read: {error.strerror}") from error


def _pieces(path: Path) -> bytes:
    size = path.stat().st_size
    digest = hashlib.sha256(f"{path.name} {size}".encode())
    with path.open("rb") as file:
        for place in range(PLACES):
            file.seek(max(0, size - PIECE) * place // (PLACES - 1))
            digest.update(file.read(PIECE))
    return digest.digest()


def _template(folder: Path) -> str:
    """Return the fingerprint of the template in chat_template.jinja or, without that file, tokenizer_config.json."""
    template_file, configuration = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    text = ""
    if template_file.exists():
        text = template_file.read_text(encoding="utf-8")
    elif configuration.exists():
        try:
            text = str(json.loads(configuration.read_text(encoding="utf-8")).get("chat_template") or "")
        except ValueError as error:
            raise FingerprintError(f"{configuration} is not JSON: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else "*"
