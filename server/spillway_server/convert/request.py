"""From what the user asks for to a conversion: look at the files, find the environments, convert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spillway_server import environment as settings
from spillway_server.convert import environment, inspection, samples, source
from spillway_server.convert.pipeline import Conversion, ConversionOptions, Converted
from spillway_server.convert.steps import OnStepEvent
from spillway_server.obstacle import Obstacle
from spillway_server.planning import hardware


@dataclass(frozen=True, slots=True)
class ConversionRequest:
    """What the user asks for, before any file is read.

    `name_out` derives the output folder from the model's name; `gate` and `calibration` name sample files (None: the
    general samples, and the built-in text; a calibration of `none` leaves GPTQ out of the ladder).
    """

    model: Path
    options: ConversionOptions
    name_out: bool = True
    gate: str | None = None
    gate_samples: int = 60
    calibration: str | None = None
    convert_python: Path | None = None
    llama_python: Path | None = None
    install: bool = True


def run(request: ConversionRequest, on_event: OnStepEvent, report: Callable[[str], None]) -> Converted | Obstacle:
    """Carry out a request; `report` receives a line when something is installed. Takes minutes to hours."""
    model = source.find(request.model.expanduser())
    if isinstance(model, Obstacle):
        return model
    options = request.options
    if request.name_out:
        options = replace(options, out=Path("data/models") / f"{model.name}-{options.precision}")
    template = _template(options.template)
    gate_samples = samples.read(request.gate, request.gate_samples)
    calibration = _calibration(request.calibration)
    if isinstance(template, Obstacle):
        return template
    if isinstance(gate_samples, Obstacle):
        return gate_samples
    if isinstance(calibration, Obstacle):
        return calibration
    refused = inspection.obstacle(model, options.tokenizer, template) if model.is_gguf else None
    if refused is not None:
        return refused
    folders = (Path.cwd(), settings.project_root())
    worker = environment.find_worker(request.convert_python, folders, request.install, report)
    if isinstance(worker, Obstacle):
        return worker
    llama = environment.find_llama(request.llama_python, folders)
    options = replace(options, template=template, samples=tuple(gate_samples), calibration=tuple(calibration))
    options = replace(options, has_gpu=bool(hardware.detect().gpus))
    return Conversion(source=model, options=options, worker=worker, llama=llama, on_event=on_event).run()


def _template(named: str | None) -> str | Obstacle | None:
    """The text of a template file; a template's name is returned as it is."""
    if named is None or not Path(named).suffix:
        return named
    try:
        return Path(named).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return Obstacle(f"the chat template {named} can't be read: {error}.", "Name a Jinja file.")


def _calibration(named: str | None) -> list[dict[str, Any]] | Obstacle:
    if named == "none":
        return []
    if named is None:
        return samples.general_calibration()
    return samples.demo_calibration(256) if named == "demo" else samples.read(named, 512)
