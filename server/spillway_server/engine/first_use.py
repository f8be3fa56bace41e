"""`serve MODEL.gguf`: the file is converted once, into a folder named by its digest, and served from there.

A model that its quality gate didn't bless is served all the same, with a warning: the user asked for this very file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from spillway_server.convert import blessing
from spillway_server.convert.command import ConversionRequest, run
from spillway_server.convert.pipeline import ConversionOptions
from spillway_server.convert.steps import StepDone, StepEvent, StepProgress, StepStarted, digest
from spillway_server.planning.models import ModelSpec, from_directory
from spillway_server.refusal import Refusal

# Enough for a verdict on perplexity; a thorough gate is `spillway convert` by hand, with samples of one's own task.
SAMPLES = 24


def converted(gguf: Path, folder: Path, say: Callable[[str], None]) -> ModelSpec | Refusal:
    """The W4A16 checkpoint of a GGUF file, from `folder` or made now."""
    if not gguf.is_file():
        return Refusal(f"there is no file {gguf}.", "Name a GGUF file, a directory, a hub name, `demo` or `auto`.")
    out = folder / f"{gguf.stem}-{digest(gguf)[:12]}"
    if not (out / blessing.FILE).exists():
        say(f"{gguf.name} is converted on first use, into {out}; later starts take it from there")
        made = run(
            ConversionRequest(gguf, ConversionOptions(out=out), name_out=False, gate_samples=SAMPLES), _teller(say), say
        )
        if isinstance(made, Refusal):
            return made
    found = from_directory(out.absolute(), gguf.stem)
    return found if isinstance(found, Refusal) else replace(found, served_name=gguf.stem)


def _teller(say: Callable[[str], None]) -> Callable[[StepEvent], None]:
    def tell(event: StepEvent) -> None:
        match event:
            case StepStarted(step, _):
                say(f"  {step}")
            case StepProgress(step, share, what):
                say(f"  {step} {share:.0%}: {what}")
            case StepDone(step, seconds, resumed):
                say(f"  {step} done{' before' if resumed else ''} ({seconds:.1f} s)")

    return tell
