"""Find out what the user named: a GGUF file, an Ollama modelfile, manifest or blob, or a checkpoint directory."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from spillway_server.obstacle import Obstacle

MAGIC = b"GGUF"
_LAYERS = {"model": "application/vnd.ollama.image.model", "template": "application/vnd.ollama.image.template"}
_PARAMETERS = "application/vnd.ollama.image.params"
# `TEMPLATE """..."""`, `TEMPLATE "..."` or the rest of the line; the same for the other instructions.
_INSTRUCTION = re.compile(
    r'^[ \t]*(FROM|TEMPLATE|PARAMETER|ADAPTER)[ \t]+("""(.*?)"""|"([^"\n]*)"|([^\n]*))', re.I | re.M | re.S
)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to convert.

    `path` is a GGUF file or a checkpoint directory; `template` is Ollama's (Go syntax), where there is one; `stops` are
    the words that end an answer.
    """

    path: Path
    name: str
    is_gguf: bool
    template: str | None = None
    stops: tuple[str, ...] = ()


def find(named: Path) -> ModelSource | Obstacle:
    """Identify `named` by reading a few bytes, or a small file."""
    try:
        return _find(named)
    except (OSError, ValueError, RecursionError) as error:
        # A name that no file can have, or a modelfile that is made from itself.
        return Obstacle(f"{str(named)[:200]} can't be read: {error}.", "Name a GGUF file or an Ollama modelfile.")


def _find(named: Path) -> ModelSource | Obstacle:
    if named.is_dir():
        if (named / "config.json").exists() and any(named.glob("*.safetensors")):
            return ModelSource(named.absolute(), named.absolute().name, False)
        if (named / "Modelfile").exists():
            return _find(named / "Modelfile")
        return Obstacle(
            f"{named} holds neither config.json with *.safetensors nor a Modelfile.",
            "Name a GGUF file, an Ollama modelfile, or a Hugging Face checkpoint directory.",
        )
    try:
        with named.open("rb") as file:
            head = file.read(4)
        if head == MAGIC:
            return ModelSource(named.absolute(), named.stem, True)
        if named.stat().st_size > 1_000_000:
            return Obstacle(f"{named} is not a GGUF file (it begins with {head!r}).", "Fetch the file again.")
        text = named.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Obstacle(
            f"there is no file {named}.", "Name a GGUF file, an Ollama modelfile, or a checkpoint directory."
        )
    except (OSError, UnicodeDecodeError) as error:
        return Obstacle(f"{named} can't be read: {error}.", "Name a GGUF file or an Ollama modelfile.")
    return _manifest(named, text) if text.lstrip().startswith("{") else _modelfile(named, text)


def _modelfile(file: Path, text: str) -> ModelSource | Obstacle:
    instructions: dict[str, list[str]] = {}
    for match in _INSTRUCTION.finditer(_without_comments(text)):
        value = next(part for part in match.group(3, 4, 5) if part is not None)
        instructions.setdefault(match[1].upper(), []).append(value if match[3] is not None else value.strip())
    if not instructions.get("FROM"):
        return Obstacle(f"{file} is neither a GGUF file nor an Ollama modelfile: it has no FROM.", "Name another file.")
    if instructions.get("ADAPTER"):
        return Obstacle(
            f"{file} puts an adapter on top of its model.", "Convert the base, then serve the adapter with --lora."
        )
    base = Path(instructions["FROM"][-1]).expanduser()
    base = base if base.is_absolute() else file.parent / base
    if not base.is_file():
        return Obstacle(
            f"{file} is made FROM {instructions['FROM'][-1]}, which is not a file here.",
            "Let Ollama write out the blob's path: `ollama show --modelfile NAME > Modelfile`.",
        )
    below = _find(base)
    if isinstance(below, Obstacle):
        return below
    parameters = [p.split(None, 1) for p in instructions.get("PARAMETER", [])]
    stops = [p[1].strip().strip('"') for p in parameters if len(p) == 2 and p[0].lower() == "stop"]
    template = instructions["TEMPLATE"][-1] if instructions.get("TEMPLATE") else below.template
    name = file.parent.name if file.name == "Modelfile" else file.stem
    return ModelSource(path=below.path, name=name, is_gguf=below.is_gguf, template=template, stops=tuple(stops))


def _without_comments(text: str) -> str:
    # Only lines before the first instruction are comments: a template may hold lines that begin with #.
    return re.sub(r"\A(?:[ \t]*#[^\n]*\n|[ \t]*\n)+", "", text)


def _manifest(file: Path, text: str) -> ModelSource | Obstacle:
    """Read Ollama's manifests/REGISTRY/LIBRARY/NAME/TAG; its blobs are in the `blobs` folder beside `manifests`."""
    try:
        layers = {str(layer["mediaType"]): str(layer["digest"]) for layer in json.loads(text)["layers"]}
    except (ValueError, LookupError, TypeError, RecursionError):
        return Obstacle(f"{file} is JSON but not an Ollama manifest.", "Name a GGUF file or an Ollama modelfile.")
    blobs = next((p.parent / "blobs" for p in file.absolute().parents if p.name == "manifests"), None)
    if blobs is None or _LAYERS["model"] not in layers:
        return Obstacle(f"{file} is not in an Ollama `manifests` folder, or names no model.", "Name the blob itself.")

    def blob(kind: str) -> Path | None:
        return blobs / layers[kind].replace(":", "-") if kind in layers else None

    model = blob(_LAYERS["model"])
    if model is None or not model.exists():
        return Obstacle(f"the model's blob {model} is missing.", "Pull the model again with Ollama.")
    template, parameters = blob(_LAYERS["template"]), blob(_PARAMETERS)
    try:
        stops = json.loads(parameters.read_text(encoding="utf-8")).get("stop", []) if parameters else []
        words = template.read_text(encoding="utf-8") if template else None
    except (OSError, ValueError, AttributeError) as error:
        return Obstacle(f"a blob of {file} can't be read: {error}.", "Pull the model again with Ollama.")
    return ModelSource(
        path=model,
        name=f"{file.parent.name}-{file.name}",
        is_gguf=True,
        template=words,
        stops=tuple(str(s) for s in stops),
    )
