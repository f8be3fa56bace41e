"""What providers take, as dated copies in the repository, and what their newest releases take.

`python -m evidence.provider_schemas` (`make schemas`) installs the newest release of each provider's own package into
an environment of its own, asks it what it takes, and prints what differs from the copy: what changed or is gone in
full, what came to it as a count, since nobody has to send it. The exit status is 1 if something changed, is gone or
could not be asked. `--write` replaces the copies.

    runpod  its OpenAPI document, from the repository runpod/docs (`--runpod FILE` takes a document that is there)
    vast    the options of `vastai`, and the fields that its search knows
    sky     SkyPilot's schemas of tasks, resources and services
    ray     Ray Serve's schemas of what its API takes and answers
    aws     no copy: cfn-lint carries AWS' own schemas, and the newest one looks at the template
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from evidence import runpod_schema

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "deploy" / "aws" / "template.yaml"
RUNPOD = "https://raw.githubusercontent.com/runpod/docs/main/api-reference-v2/openapi.json"
INSTALL_S = 1200
ASK_S = 120


class UnknownError(Exception):
    """A provider's newest schema is not to be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy in the repository, and the package that knows the newest."""

    name: str
    file: Path
    package: str
    title: str


@dataclass(frozen=True, slots=True)
class Newest:
    """What a provider takes now, and the version of the package that says so."""

    version: str
    schemas: Mapping[str, Any]


COPIES = (
    Copy(
        "vast",
        ROOT / "deploy/vast/schema.json",
        "vastai",
        "What vastai {version} takes (MIT), written on {day} from its parser",
    ),
    Copy(
        "sky",
        ROOT / "deploy/sky/schema.json",
        "skypilot",
        "What SkyPilot {version} accepts as a task, its resources and its service (Apache-2.0), written on {day} by "
        "sky.utils.schemas",
    ),
    Copy(
        "ray",
        ROOT / "deploy/ray/schema.json",
        "ray[serve]",
        "What Ray {version} takes and answers (Apache-2.0), written on {day} by model_json_schema() of "
        "ray.serve.schema",
    ),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the newest differs from the copy: lines for what changed or is gone, a count of what came to it."""

    changed: tuple[str, ...]
    added: int


def compare(kept: Any, newest: Any) -> Difference:
    """Compare two JSON values. A new member is no change to those who don't send it; lists are compared as a whole, so
    that a new required field is one."""
    lines = list(runpod_schema.differences(kept, newest))
    changed = tuple(line for line in lines if ": null -> " not in line)
    return Difference(changed, len(lines) - len(changed))


def report(name: str, difference: Difference) -> str:
    """Say what differs."""
    if not difference.changed and not difference.added:
        return f"{name}: nothing differs"
    head = f"{name}: {len(difference.changed)} changed or gone, {difference.added} new"
    return "\n".join([head, *(f"  {line}" for line in difference.changed)])


def newest_of(copy: Copy) -> Newest:
    """Ask the newest release of a copy's package. Raises UnknownError."""
    python = _environment(copy.name, copy.package)
    distribution = copy.package.partition("[")[0]
    tell = f"import importlib.metadata as m; print(m.version('{distribution}'))"
    writer = ROOT / "evidence" / "schema_writers" / f"{copy.name}.py"
    # -P: the folder of the writers, which are named after what they import, stays off the path.
    return Newest(_run((str(python), "-c", tell)).strip(), json.loads(_run((str(python), "-P", str(writer)))))


def aws_findings() -> str:
    """Return what the newest cfn-lint finds in the template; "" if nothing. Raises UnknownError."""
    python = _environment("aws", "cfn-lint")
    words = (str(python.with_name("cfn-lint")), str(TEMPLATE))
    done = subprocess.run(words, capture_output=True, text=True, timeout=ASK_S, check=False)
    return "" if done.returncode == 0 else (done.stdout or done.stderr).strip()


def runpod_document(file: str) -> dict[str, Any]:
    """Return RunPod's document from a file or from its repository. Raises UnknownError."""
    try:
        if file:
            text = Path(file).read_text(encoding="utf-8")
        else:
            text = httpx.get(RUNPOD, timeout=ASK_S).raise_for_status().text
        document: dict[str, Any] = json.loads(text)
    except (OSError, httpx.HTTPError, ValueError) as error:
        raise UnknownError(f"{file or RUNPOD}: {error}") from None
    return document


def write(copy: Copy, newest: Newest, day: str) -> None:
    """Replace a copy."""
    title = copy.title.format(version=newest.version, day=day)
    copy.file.write_text(json.dumps({"title": title, **newest.schemas}, indent=1) + "\n", encoding="utf-8")


def _environment(name: str, package: str) -> Path:
    """Return the Python of an environment with the newest release of a package. Raises UnknownError."""
    folder = ROOT / ".cache" / "schemas" / name
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    _run((str(python), "-m", "pip", "install", "--quiet", "--upgrade", package), INSTALL_S)
    return python


def _run(words: Sequence[str], within_s: float = ASK_S) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=within_s, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise UnknownError(str(error.stderr)[-400:]) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnknownError(str(error)) from None


def main(words: Sequence[str], ask: Callable[[Copy], Newest] = newest_of, copies: Sequence[Copy] = COPIES) -> int:
    """Compare every copy, or those that are named, and print what differs."""
    names = ["runpod", *(copy.name for copy in copies), "aws"]
    parser = argparse.ArgumentParser(
        prog="python -m evidence.provider_schemas", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--only", action="append", choices=names, help="compare this one alone (may be repeated)")
    parser.add_argument("--runpod", default="", metavar="FILE", help="RunPod's document, where it is there already")
    parser.add_argument("--write", action="store_true", help="replace the copies of vast, sky and ray")
    given = parser.parse_args(list(words))
    wanted, differs = given.only or names, False

    def compared(name: str, of: Callable[[], Difference]) -> None:
        nonlocal differs
        try:
            difference = of()
        except UnknownError as error:
            differs = True
            print(f"{name}: not compared: {error}")
        else:
            differs = differs or bool(difference.changed)
            print(report(name, difference))

    def of_runpod() -> Difference:
        newer = runpod_schema.newest(runpod_document(given.runpod))
        kept = runpod_schema.Schema().document
        return compare({part: kept[part] for part in newer}, newer)

    def of_copy(copy: Copy) -> Difference:
        newest = ask(copy)
        kept = json.loads(copy.file.read_text(encoding="utf-8"))
        if given.write:
            write(copy, newest, datetime.now(UTC).date().isoformat())
        return compare({name: value for name, value in kept.items() if name != "title"}, newest.schemas)

    if "runpod" in wanted:
        compared("runpod", of_runpod)
    for copy in copies:
        if copy.name in wanted:
            compared(copy.name, functools.partial(of_copy, copy))
    if "aws" in wanted:
        compared("aws", lambda: Difference(tuple(aws_findings().splitlines()), 0))
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
