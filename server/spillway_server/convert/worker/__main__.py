"""`python -m spillway_server.convert.worker JOB.json RESULT.json`: run one job.

Exit status: 0 with the result written, 3 when the job was refused (the result file holds `refused`), else a crash.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from spillway_server.convert.worker.report import JobError, report_progress

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "generation_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
"""What --tokenizer DIRECTORY brings along."""


def _inspect(job: dict[str, Any]) -> dict[str, Any]:
    from spillway_server.convert.worker import header, tensors, vocabulary

    opened = header.open_gguf(Path(job["gguf"]))
    tensors.check_complete(opened)
    for tensor in opened.reader.tensors:
        if not tensors.is_skipped(tensor.name):
            tensors.checkpoint_name(tensor.name, opened.family)
    if not job["tokenizer"]:
        vocabulary.build(opened)
    names = {tensor.name for tensor in opened.reader.tensors}
    header.model_config(opened, "float16", names)
    return {**header.facts(Path(job["gguf"])), "dtype": tensors.natural_dtype(opened)}


def _unpack(job: dict[str, Any]) -> dict[str, Any]:
    import shutil

    from spillway_server.convert.worker import header, tensors, vocabulary

    opened, folder = header.open_gguf(Path(job["gguf"])), Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    tensors.write_weights(opened, folder, job["dtype"], job["shard_bytes"] or tensors.SHARD_BYTES)
    names = {tensor.name for tensor in opened.reader.tensors}
    config = header.model_config(opened, job["dtype"], names)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if job["tokenizer"]:
        for name in TOKENIZER_FILES:
            if Path(job["tokenizer"], name).exists():
                shutil.copyfile(Path(job["tokenizer"], name), folder / name)
        written = folder / "tokenizer_config.json"
        settings = json.loads(written.read_text()) if written.exists() else {}
        if job["template"]:
            (folder / "chat_template.jinja").unlink(missing_ok=True)
            settings["chat_template"] = job["template"]
        written.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    else:
        vocabulary.write(opened, folder, job["template"], job["stops"])
    return {}


def _quantise(job: dict[str, Any]) -> dict[str, Any]:
    from spillway_server.convert.worker import quantise

    return quantise.quantise(
        Path(job["source"]), Path(job["folder"]), job["method"], job["group_size"], job["calibration"]
    )


def _carry(job: dict[str, Any]) -> dict[str, Any]:
    from spillway_server.convert.worker import carry, header

    opened = header.open_gguf(Path(job["gguf"])) if job["gguf"] else None
    return carry.carry(Path(job["source"]), Path(job["folder"]), job["bits"], opened)


def _judge(job: dict[str, Any]) -> dict[str, Any]:
    from spillway_server.convert.worker import judge

    return judge.judge(Path(job["folder"]), job["samples"], job["answer_tokens"])


def _requantise(job: dict[str, Any]) -> dict[str, Any]:
    from spillway_server.convert.worker import requantise

    requantise.requantise(Path(job["gguf"]), Path(job["target"]), job["kind"])
    return {}


_JOBS = {
    "inspect": _inspect,
    "unpack": _unpack,
    "quantise": _quantise,
    "carry": _carry,
    "judge": _judge,
    "requantise": _requantise,
}


def main() -> int:
    """Run the job that the file names."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        result = _JOBS[job["job"]](job)
    except JobError as error:
        Path(sys.argv[2]).write_text(json.dumps({"refused": {"reason": error.reason, "fix": error.fix}}))
        return 3
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
    # Linux reports KiB; pages of mapped files count, although the kernel frees them when memory is short.
    report_progress(1.0, f"done, at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB of memory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
