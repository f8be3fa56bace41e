"""`spillway convert`: the command line of the conversion, its progress and its result on a terminal."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spillway_server import present
from spillway_server.convert.gate import Bounds
from spillway_server.convert.pipeline import DTYPES, METHODS, PRECISIONS, ConversionOptions, Converted
from spillway_server.convert.request import ConversionRequest, run
from spillway_server.convert.steps import OnStepEvent, StepDone, StepEvent, StepProgress, StepStarted
from spillway_server.obstacle import Obstacle
from spillway_server.planning import verification

_UNVERIFIED = 2


_Model = Annotated[
    Path, typer.Argument(help="A GGUF file, an Ollama modelfile, manifest or blob, or a checkpoint directory.")
]
_Out = Annotated[
    Path | None, typer.Option("--output", "--out", help="Output folder. The default is data/models/NAME-PRECISION.")
]
_Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|w4a16|w8a16|16bit",
        help="auto (4 bits, or as many as the gate asks for), w4a16, w8a16, or 16bit (unpack only).",
    ),
]
_ForCpu = Annotated[bool, typer.Option("--for-cpu", help="Leave 8 bits out: vLLM on a CPU has no kernel for them.")]
_Method = Annotated[
    str, typer.Option(metavar="rtn|gptq|awq", help="rtn (needs no data), gptq or awq (both calibrate).")
]
_GroupSize = Annotated[
    int | None, typer.Option(min=16, help="Weights per scale. The default is the largest that fits.")
]
_Calibration = Annotated[
    str | None,
    typer.Option(
        help="Samples to calibrate on: a .jsonl file, or `demo`. The default is built in; `none` leaves GPTQ out."
    ),
]
_Gate = Annotated[str | None, typer.Option(help="Samples for the quality gate: a .jsonl file, or `demo`.")]
_GateSamples = Annotated[int, typer.Option(min=1, max=10000, help="The maximum number of samples to judge.")]
_MaxDrop = Annotated[float, typer.Option(min=0, max=1, help="The share of accuracy that may be lost.")]
_MaxRatio = Annotated[float, typer.Option(min=1, help="The allowed perplexity, as a multiple of the GGUF's.")]
_ChatTemplate = Annotated[str | None, typer.Option(help="A Jinja file, or the name of a template such as chatml.")]
_Tokenizer = Annotated[Path | None, typer.Option(help="Directory with the original model's tokenizer.json.")]
_Dtype = Annotated[str | None, typer.Option(help="float16, bfloat16 or float32. The default depends on the file.")]
_ConvertPython = Annotated[Path | None, typer.Option(help="A Python that has llm-compressor.")]
_LlamaPython = Annotated[Path | None, typer.Option(help="A Python that has llama-cpp-python.")]
_Install = Annotated[bool, typer.Option(help="Install .venv-convert when it is missing.")]
_KeepWork = Annotated[bool, typer.Option(help="Keep the unpacked 16-bit checkpoint.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def convert(
    model: _Model,
    out: _Out = None,
    precision: _Precision = "auto",
    for_cpu: _ForCpu = False,
    method: _Method = "rtn",
    group_size: _GroupSize = None,
    calibration: _Calibration = None,
    gate: _Gate = None,
    gate_samples: _GateSamples = 60,
    max_drop: _MaxDrop = 0.02,
    max_ratio: _MaxRatio = 1.10,
    chat_template: _ChatTemplate = None,
    tokenizer: _Tokenizer = None,
    dtype: _Dtype = None,
    convert_python: _ConvertPython = None,
    llama_python: _LlamaPython = None,
    install: _Install = True,
    keep_work: _KeepWork = False,
    as_json: _AsJson = False,
) -> None:
    """Convert a GGUF file into a checkpoint for vLLM, and judge it against the GGUF. An interrupted run can be resumed.

    Exit status: 0 verified, 1 refused, 2 converted but outside the quality gate.
    """
    _check_choices(precision, method, dtype)
    options = ConversionOptions(
        out=out or Path(),
        precision=precision,
        eight_bit=not for_cpu,
        method=method,
        group_size=group_size,
        dtype=dtype,
        template=chat_template,
        tokenizer=tokenizer,
        bounds=Bounds(max_drop=max_drop, max_ratio=max_ratio),
        keep_work=keep_work,
    )
    request = ConversionRequest(
        model=model,
        options=options,
        name_out=out is None,
        gate=gate,
        gate_samples=gate_samples,
        calibration=calibration,
        convert_python=convert_python,
        llama_python=llama_python,
        install=install,
    )
    _convert(request, as_json)


def _check_choices(precision: str, method: str, dtype: str | None) -> None:
    """Refuse a value that is not on its list, as a wrong use of the command line."""
    for value, choices, name in ((precision, PRECISIONS, "precision"), (method, METHODS, "method")):
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}", param_hint=f"--{name}")
    if dtype is not None and dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is not one of {', '.join(DTYPES)}", param_hint="--dtype")


def _convert(request: ConversionRequest, as_json: bool) -> None:
    """Run the conversion, print its events and its result, and end with the command's exit status."""
    console = Console(stderr=True)
    converted = run(request, _event_printer(console), lambda line: console.print(escape(line)))
    if isinstance(converted, Obstacle):
        present.end_at_obstacle(converted, as_json)
    _show(converted, as_json)
    if not converted.verdict.verified:
        raise typer.Exit(_UNVERIFIED)


def _event_printer(console: Console) -> OnStepEvent:
    def print_event(event: StepEvent) -> None:
        match event:
            case StepStarted(step, needs):
                console.print(f"{step}" + (f" (needs {needs / 1e9:.2f} GB of disk)" if needs else ""))
            case StepProgress(step, share, what):
                console.print(f"  {step} {share:4.0%}  {escape(what)}", highlight=False)
            case StepDone(step, seconds, resumed):
                console.print(f"{step} {'was done before' if resumed else 'done'} ({seconds:.1f} s)", highlight=False)

    return print_event


def _show(converted: Converted, as_json: bool) -> None:
    verdict = dataclasses.asdict(converted.verdict)
    if as_json:
        print(json.dumps({"folder": str(converted.folder), **verdict}, indent=2))
        return
    table = Table(title=f"{converted.folder}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in converted.verdict.figures.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    console = Console()
    console.print(table)
    for row in converted.verdict.recipe.get("ladder", ()):
        console.print(_rung_line(row), soft_wrap=True)
    if converted.verdict.verified:
        console.print(f"[green]verified[/]: spillway serve --model {converted.folder}")
    else:
        console.print(f"[red]not verified[/]: {escape(' '.join(converted.verdict.reasons))}")
        console.print("Try --method gptq, a smaller --group-size, or --precision 16bit.")
        console.print(f"The figures are in {converted.folder / verification.FILE}.", soft_wrap=True)


def _rung_line(row: dict[str, Any]) -> str:
    """Return one step of the ladder as a line: what it costs and what the gate said of it."""
    if not row["weight_bytes"]:
        return f"{row['precision']}: left out. {escape(' '.join(row['reasons']))}"
    ratio = row["perplexity_ratio"]
    quality = "no perplexity" if ratio is None else f"perplexity {ratio:.3f} times the source's"
    verdict = "inside the gate" if row["verified"] else "outside the gate"
    speed = f"up to {row['times_as_fast_as_16_bit']:g} times as fast as 16 bit on a GPU"
    return f"{row['precision']}: {row['weight_bytes'] / 1e6:,.0f} MB, {speed}, {quality}: {verdict}"
