"""`spillway convert`: the command line of the conversion."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spillway_server import environment as settings
from spillway_server import present
from spillway_server.convert import blessing, environment, samples, source
from spillway_server.convert.gate import Bounds
from spillway_server.convert.pipeline import DTYPES, METHODS, Conversion, ConversionOptions, Converted
from spillway_server.convert.steps import StepDone, StepEvent, StepProgress, StepStarted, Tell
from spillway_server.refusal import Refusal

_PRECISIONS = ("w4a16", "16bit")
_UNBLESSED = 2


def convert(
    model: Annotated[Path, typer.Argument(help="A GGUF file, an Ollama modelfile, manifest or blob, or a directory.")],
    out: Annotated[Path | None, typer.Option(help="Where the model goes [data/models/NAME-PRECISION].")] = None,
    precision: Annotated[str, typer.Option(help="w4a16 (4-bit weights), or 16bit (only unpack).")] = "w4a16",
    method: Annotated[str, typer.Option(help="rtn (no data), gptq or awq (with --calibration).")] = "rtn",
    group_size: Annotated[int | None, typer.Option(min=16, help="Weights per scale; left out: what fits.")] = None,
    calibration: Annotated[str | None, typer.Option(help="Samples to calibrate on: a .jsonl file, or `demo`.")] = None,
    gate: Annotated[str | None, typer.Option(help="Samples for the gate: a .jsonl file, or `demo`.")] = None,
    gate_samples: Annotated[int, typer.Option(min=1, max=10000, help="Samples to judge at most.")] = 60,
    max_drop: Annotated[float, typer.Option(min=0, max=1, help="Accuracy that may be lost, as a share.")] = 0.02,
    max_ratio: Annotated[float, typer.Option(min=1, help="Perplexity allowed, times the GGUF's.")] = 1.10,
    chat_template: Annotated[str | None, typer.Option(help="A Jinja file, or a name such as chatml.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Directory with the original's tokenizer.json.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float16, bfloat16 or float32 [by the file].")] = None,
    convert_python: Annotated[Path | None, typer.Option(help="The Python that has llm-compressor.")] = None,
    llama_python: Annotated[Path | None, typer.Option(help="The Python that has llama-cpp-python.")] = None,
    install: Annotated[bool, typer.Option(help="Install .venv-convert when it is missing.")] = True,
    keep_work: Annotated[bool, typer.Option(help="Keep the unpacked 16-bit checkpoint.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a checkpoint for vLLM from a GGUF file, and judge it against the GGUF. Resumes where it was interrupted.

    Exit status: 0 blessed, 1 refused, 2 converted but outside the quality gate.
    """
    for value, known, name in ((precision, _PRECISIONS, "precision"), (method, METHODS, "method")):
        if value not in known:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(known)}", param_hint=f"--{name}")
    if dtype is not None and dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is not one of {', '.join(DTYPES)}", param_hint="--dtype")
    wish = ConversionOptions(
        out=out or Path(),
        precision=precision,
        method=method,
        group_size=group_size,
        dtype=dtype,
        template=chat_template,
        tokenizer=tokenizer,
        bounds=Bounds(most_drop=max_drop, most_ratio=max_ratio),
        keep_work=keep_work,
    )
    tell = _teller(Console(stderr=True), as_json)
    asked = ConversionRequest(
        model, wish, out is None, gate, gate_samples, calibration, convert_python, llama_python, install
    )
    made = run(asked, tell, lambda line: Console(stderr=True).print(escape(line)))
    if isinstance(made, Refusal):
        present.end_refused(made, as_json)
    _show(made, as_json)
    if not made.verdict.blessed:
        raise typer.Exit(_UNBLESSED)


@dataclasses.dataclass(frozen=True, slots=True)
class ConversionRequest:
    """What the user asked for, before any file was looked at."""

    model: Path
    wish: ConversionOptions
    name_out: bool = True
    gate: str | None = None
    gate_samples: int = 60
    calibration: str | None = None
    convert_python: Path | None = None
    llama_python: Path | None = None
    install: bool = True


def run(asked: ConversionRequest, tell: Tell, say: Any) -> Converted | Refusal:
    """Look at the files, find the environments, convert."""
    found = source.find(asked.model.expanduser())
    if isinstance(found, Refusal):
        return found
    wish = asked.wish
    if asked.name_out:
        wish = dataclasses.replace(wish, out=Path("data/models") / f"{found.name}-{wish.precision}")
    template = _template(wish.template)
    judged = samples.read(asked.gate, asked.gate_samples)
    learnt = _calibration(asked.calibration)
    if isinstance(template, Refusal):
        return template
    if isinstance(judged, Refusal):
        return judged
    if isinstance(learnt, Refusal):
        return learnt
    folders = (Path.cwd(), settings.project_root())
    worker = environment.find_worker(asked.convert_python, folders, asked.install, say)
    if isinstance(worker, Refusal):
        return worker
    llama = environment.find_llama(asked.llama_python, folders)
    wish = dataclasses.replace(wish, template=template, samples=tuple(judged), calibration=tuple(learnt))
    return Conversion(found, wish, worker, llama, tell).run()


def _template(given: str | None) -> str | Refusal | None:
    if given is None or not Path(given).suffix:
        return given
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return Refusal(f"the chat template {given} can't be read: {error}.", "Name a Jinja file.")


def _calibration(named: str | None) -> list[dict[str, Any]] | Refusal:
    if named is None:
        return []
    return samples.demo_calibration(256) if named == "demo" else samples.read(named, 512)


def _teller(console: Console, as_json: bool) -> Tell:
    def tell(event: StepEvent) -> None:
        if as_json:
            print(json.dumps({"event": type(event).__name__, **dataclasses.asdict(event)}), flush=True)
            return
        match event:
            case StepStarted(step, needs):
                console.print(f"{step}" + (f" (needs {needs / 1e9:.2f} GB of disk)" if needs else ""))
            case StepProgress(step, share, what):
                console.print(f"  {step} {share:4.0%}  {escape(what)}", highlight=False)
            case StepDone(step, seconds, resumed):
                console.print(f"{step} done{' before' if resumed else ''} ({seconds:.1f} s)", highlight=False)

    return tell


def _show(made: Converted, as_json: bool) -> None:
    verdict = dataclasses.asdict(made.verdict)
    if as_json:
        print(json.dumps({"folder": str(made.folder), **verdict}, indent=2))
        return
    table = Table(title=f"{made.folder}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in made.verdict.figures.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    console = Console()
    console.print(table)
    if made.verdict.blessed:
        console.print(f"[green]blessed[/]: spillway serve --model {made.folder}")
    else:
        console.print(f"[red]not blessed[/]: {escape(' '.join(made.verdict.reasons))}")
        console.print(f"Try --method gptq --calibration FILE.jsonl, a smaller --group-size, or --precision 16bit. "
                      f"The figures are in {made.folder / blessing.FILE}.")  # fmt: skip
