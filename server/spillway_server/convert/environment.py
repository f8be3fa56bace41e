"""Run jobs in other Pythons: the one with llm-compressor (.venv-convert), installed on demand, and the one with
llama.cpp."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillway_server.obstacle import Obstacle

CONVERT_VENV, LLAMA_VENV = ".venv-convert", ".venv-llama"
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
INSTALL_LIMIT_S = 1800.0
# A 7B model on a few cores takes tens of minutes per step; the limit only ends what hangs.
JOB_LIMIT_S = 6 * 3600.0
_REFUSED = 3
_PROBE = "import importlib.util as u, sys; sys.exit(not all(u.find_spec(n) for n in {names!r}))"


@dataclass(frozen=True, slots=True)
class Worker:
    """A Python that runs jobs, and the limit for one job in seconds."""

    python: Path
    limit_s: float = JOB_LIMIT_S

    def run(self, job: dict[str, Any], progress: Callable[[float, str], None]) -> dict[str, Any] | Obstacle:
        """Run one job of `spillway_server.convert.worker`; an obstacle is the job's own, or says why it crashed."""
        command = ("-m", "spillway_server.convert.worker")
        return _job(self.python, command, job, progress, self.limit_s)


def llama_judge(python: Path, job: dict[str, Any], limit_s: float = JOB_LIMIT_S) -> dict[str, Any] | Obstacle:
    """Have llama.cpp judge a GGUF file (see worker/llama.py)."""
    script = str(Path(__file__).with_name("worker") / "llama.py")
    return _job(python, (script,), job, lambda _share, _what: None, limit_s)


def find_worker(
    explicit: Path | None, folders: tuple[Path, ...], install: bool, report: Callable[[str], None]
) -> Worker | Obstacle:
    """Find the Python for jobs: the one that the user names, else .venv-convert in `folders`, installed if allowed."""
    packages = ("torch", "transformers", "llmcompressor", "gguf")
    if explicit is not None:
        if _has(explicit, packages):
            return Worker(explicit)
        return Obstacle(
            f"{explicit} lacks one of {', '.join(packages)}.", "Install requirements/convert.lock in that environment."
        )
    for folder in folders:
        python = folder / CONVERT_VENV / "bin" / "python"
        if python.exists() and _has(python, packages):
            return Worker(python)
    installer = next(
        (f / "requirements" / "install.py" for f in folders if (f / "requirements/install.py").exists()), None
    )
    if installer is None or not install:
        return Obstacle(
            "the environment for conversions, .venv-convert, is not installed.",
            "Run `make install-convert` in the checkout (0.5 GB to download), or name a Python with --convert-python.",
        )
    report("installing .venv-convert, once (about 0.5 GB to download; usually 2 to 5 min)")
    try:
        installation = subprocess.run([sys.executable, str(installer), "convert"], timeout=INSTALL_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return Obstacle(f"installing .venv-convert took over {INSTALL_LIMIT_S / 60:.0f} min.", "Check the network.")
    python = installer.parents[1] / CONVERT_VENV / "bin" / "python"
    if installation.returncode or not python.exists():
        return Obstacle(".venv-convert could not be installed; pip's message is above.", "Run `make install-convert`.")
    return Worker(python)


def find_llama(explicit: Path | None, folders: tuple[Path, ...]) -> Path | None:
    """Return a Python with llama-cpp-python, or None."""
    candidates = [explicit] if explicit else [folder / LLAMA_VENV / "bin" / "python" for folder in folders]
    return next((python for python in candidates if python.exists() and _has(python, ("llama_cpp",))), None)


def _has(python: Path, names: tuple[str, ...]) -> bool:
    try:
        probe = subprocess.run([str(python), "-c", _PROBE.format(names=names)], timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0


def _job(
    python: Path,
    command: tuple[str, ...],
    job: dict[str, Any],
    progress: Callable[[float, str], None],
    limit_s: float,
) -> dict[str, Any] | Obstacle:
    """Run one process: job and result are files, progress comes on standard output, errors go to a log."""
    with tempfile.TemporaryDirectory(prefix="spillway-convert-") as folder:
        job_file, result_file, errors = (Path(folder, name) for name in ("job.json", "result.json", "errors.log"))
        job_file.write_text(json.dumps(job), encoding="utf-8")
        with errors.open("w") as log:
            process = subprocess.Popen(
                [str(python), *command, str(job_file), str(result_file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env=_environment(),
            )
        status, timed_out = _watch(process, progress, limit_s)
        if timed_out:
            return Obstacle(
                f"a step took more than {limit_s / 60:.0f} min and was stopped.", "Run again: it resumes from there."
            )
        if result_file.exists() and status in (0, _REFUSED):
            result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
            return result if status == 0 else Obstacle(**result["refused"])
        return _crashed(status, errors.read_text(errors="replace"))


def _watch(process: subprocess.Popen[str], progress: Callable[[float, str], None], limit_s: float) -> tuple[int, bool]:
    """Pass progress on until the process ends or times out; return its status and whether it timed out."""
    timed_out = threading.Event()

    def kill() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(limit_s, kill)
    timer.start()
    try:
        with process:
            for line in process.stdout or ():
                try:
                    message = json.loads(line)
                    progress(float(message["progress"]), str(message["what"]))
                except (ValueError, KeyError, TypeError):
                    continue
            return process.wait(), timed_out.is_set()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()


def _environment() -> dict[str, str]:
    from spillway_server.environment import engine_environment

    # Nothing is downloaded: every file that a job needs is on this disk.
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # Waiting threads sleep: on a busy machine, spinning takes the core from the thread that they wait for.
    offline |= {"OMP_WAIT_POLICY": "PASSIVE"}
    return {**engine_environment(()), **offline, "PYTHONPATH": str(PACKAGE_ROOT)}


def _crashed(status: int, errors: str) -> Obstacle:
    tail = " ".join(errors.strip().splitlines()[-3:])[-500:]
    if status in (-9, 137):
        return Obstacle(
            f"a step was killed (signal 9), most likely because memory ran out. {tail}",
            "A step needs about three times the size of the weights.",
        )
    return Obstacle(
        f"a step ended with status {status}: {tail}", "If the file is complete, report this with the model's name."
    )
