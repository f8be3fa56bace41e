"""The command `python -m evidence.fuzz.coverage`: fuzzes every reader guided by coverage, for a given time in all.

It needs atheris (https://pypi.org/project/atheris/), which brings libFuzzer and is not in the locks: `pip install
atheris`. Inputs that reach new code are kept and are the seeds of the next run. The hot path runs from its sources,
because compiled code can't be watched.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

INTO = Path(".cache/fuzz")
REMEDY = "coverage-guided fuzzing needs atheris, which is optional: .venv/bin/pip install atheris"
_GRACE_S = 60.0
"""Seconds that a run may take beyond its time, to load and to end."""


def available() -> bool:
    """Return whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def run_all(names: list[str], seconds: float, into: Path) -> bool:
    """Fuzz these readers, each in a process of its own for its share of the time; return whether nothing was found."""
    clean = True
    for name in names:
        share = max(1, round(seconds / len(names)))
        command = [sys.executable, "-m", "evidence.fuzz.coverage", "--reader", name, "--seconds", str(share)]
        done = subprocess.run(
            [*command, "--into", str(into)], capture_output=True, text=True, timeout=share + _GRACE_S, check=False
        )
        runs = re.findall(r"stat::number_of_executed_units: *(\d+)", done.stderr)
        print(f"  {name}: {runs[-1] if runs else 'no'} inputs, exit status {done.returncode}", flush=True)
        if done.returncode:
            print(done.stderr[-2000:], flush=True)
            clean = False
    return clean


def _fuzz(name: str, seconds: int, into: Path) -> None:
    """Fuzz one reader; the process ends with it."""
    import atheris

    import spillway_router
    from spillway_router.compiled import CompiledModules

    assert spillway_router.__file__
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, CompiledModules)]
    with atheris.instrument_imports(include=["spillway_router", "spillway_server"]):
        from evidence.fuzz.readers import readers, small_ledger
    kept = Path(tempfile.mkdtemp(prefix="spillway-fuzz-"))
    reader = next(one for one in readers(small_ledger(kept)) if one.name == name)
    corpus = into / "corpus" / name.replace(" ", "-")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def once(data: bytes) -> None:
        try:
            reader.read(data, kept)
        except reader.refusals:
            return

    artifacts = f"-artifact_prefix={into / name.replace(' ', '-')}-"
    options = [f"-max_total_time={seconds}", artifacts, "-print_final_stats=1", "-rss_limit_mb=4096", "-timeout=20"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m evidence.fuzz.coverage", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to fuzz, in all")
    parser.add_argument("--reader", default="", help="the one reader to fuzz; all of them by default")
    parser.add_argument("--into", type=Path, default=INTO, help="the folder for what is found")
    options = parser.parse_args()
    if not available():
        print(REMEDY, file=sys.stderr)
        return 2
    options.into.mkdir(parents=True, exist_ok=True)
    if options.reader:
        _fuzz(options.reader, int(options.seconds), options.into)
        return 0
    from evidence.fuzz.readers import readers, small_ledger

    with tempfile.TemporaryDirectory(prefix="spillway-fuzz-") as name:
        names = [reader.name for reader in readers(small_ledger(Path(name)))]
    return 0 if run_all(names, options.seconds, options.into) else 1


if __name__ == "__main__":
    sys.exit(main())
