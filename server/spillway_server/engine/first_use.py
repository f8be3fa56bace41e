"""`serve MODEL.gguf`: convert the file once, into a folder named after its digest, and serve it from there.

A model that did not pass its quality gate is served all the same, with a warning, since the user asked for this very
file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from spillway_server.convert.pipeline import ConversionOptions
from spillway_server.convert.request import ConversionRequest, run
from spillway_server.convert.steps import OnStepEvent, StepDone, StepEvent, StepProgress, StepStarted, digest
from spillway_server.obstacle import Obstacle
from spillway_server.planning import verification
from spillway_server.planning.models import ModelSpec, from_directory

# Enough for a verdict on perplexity; a thorough gate takes `spillway convert` with samples of one's own task.
SAMPLES = 24


def converted(gguf: Path, folder: Path, report: Callable[[str], None], for_cpu: bool) -> ModelSpec | Obstacle:
    """Return the checkpoint of a GGUF file in `folder`, converting the file if that has not been done yet.

    `for_cpu` leaves out the precision that vLLM's CPU build can't run.
    """
    if not gguf.is_file():
        return Obstacle(f"there is no file {gguf}.", "Name a GGUF file, a directory, a hub name, `demo` or `auto`.")
    out = folder / f"{gguf.stem}-{digest(gguf)[:12]}"
    if not (out / verification.FILE).exists():
        report(f"{gguf.name} is converted on first use, into {out}; later starts reuse it")
        request = ConversionRequest(
            gguf,
            ConversionOptions(out=out, precision="auto", eight_bit=not for_cpu),
            name_out=False,
            gate_samples=SAMPLES,
            calibration="none",  # whoever waits for an engine does not wait for GPTQ
        )
        conversion = run(request, _step_printer(report), report)
        if isinstance(conversion, Obstacle):
            return conversion
    model = from_directory(out.absolute(), gguf.stem)
    return model if isinstance(model, Obstacle) else replace(model, served_name=gguf.stem)


def _step_printer(report: Callable[[str], None]) -> OnStepEvent:
    def on_event(event: StepEvent) -> None:
        match event:
            case StepStarted(step, _):
                report(f"  {step}")
            case StepProgress(step, share, what):
                report(f"  {step} {share:.0%}: {what}")
            case StepDone(step, seconds, resumed):
                report(f"  {step} {'was done before' if resumed else 'done'} ({seconds:.1f} s)")

    return on_event
