"""The command line imports the module of the command that it runs, and no other."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.commands.registry import COMMANDS
from spillway_router.testing.processes import running, write

_LOADED_FOR_ROUTE = """
import sys
from spillway_router.cli import app
app(["route", "--help"], standalone_mode=False)
print("\\nmodules:", *sys.modules)
"""


def test_a_command_imports_its_own_module_only() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED_FOR_ROUTE], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("modules: ")[2].split())
    own = COMMANDS["route"].partition(":")[0]
    others = {place.partition(":")[0] for place in COMMANDS.values()} - {own}
    assert own in loaded
    assert loaded & others == set()
    assert [name for name in loaded if name.startswith("spillway_server")] == []


def test_a_router_imports_no_library_that_an_idle_one_does_not_need(tmp_path: Path) -> None:
    with running("route", write(tmp_path, {}), {"PYTHONPROFILEIMPORTTIME": "1"}) as router:
        assert router.url
        loaded = set(re.findall(r"\| +([\w.]+)$", router.text, re.MULTILINE))
    assert {"httptools", "spillway_router.runtime.router", "spillway_router.commands.rental_watch"} <= loaded
    unneeded = {"httpx", "rich", "pygments", "pydantic.v1.main", "xml.etree.ElementTree", "spillway_router.deploy"}
    unneeded |= {"spillway_router.documents.captions.reading", "click", "uvicorn.supervisors"}
    assert loaded & unneeded == set()


def test_the_version_is_that_of_the_distribution() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"spillway {version('spillway-llm')}\n"
