"""Rules of our own about the code of the product, each for a pattern that once was a hole here, with a seeded fault.

ruff's rules of the bandit family and bandit itself know the general patterns (`make check`); these know this code.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from tests.sources import code

PRODUCT = ("router/spillway_router", "server/spillway_server", "server/spillway_hardware")
NOT_SHIPPED = ("_compiled", "testing", "worker", "demo_model")
"""Folders whose code never runs in a router: tools of tests and of conversions in an environment of their own."""
CLIENTS = ("httpx.Client", "httpx.AsyncClient", "httpx.AsyncHTTPTransport", "httpx.HTTPTransport")

BEHIND_PROXIES = frozenset(
    {
        "router/spillway_router/deploy/runpod_api.py",
        "server/spillway_server/planning/hub.py",
    }
)
IN_ENGINES = frozenset({"server/spillway_server/engine/guard.py", "server/spillway_server/convert/environment.py"})

Finder = Callable[[str, ast.Module], Iterator[int]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern: the finder of its lines, what was wrong with it, and a fault that it must find."""

    name: str
    find: Finder
    why: str
    fault: str
    exceptions: frozenset[str] = frozenset()
    """Files in which it may stand: commands that users run behind their proxies, what runs in an engine's environment
    or installs one, and the guarded writer of tables itself."""


def written(function: ast.expr) -> str:
    """Return a function's name as it is written: `httpx.Client`, "" for what is no name."""
    words = []
    while isinstance(function, ast.Attribute):
        words.append(function.attr)
        function = function.value
    return ".".join([function.id if isinstance(function, ast.Name) else "", *reversed(words)]).strip(".")


def calls(tree: ast.Module, *names: str) -> Iterator[ast.Call]:
    """Yield the calls of functions with one of these names, written in full or by their last word."""
    for node in nodes(tree, ast.Call):
        if isinstance(node, ast.Call):
            name = written(node.func)
            if name in names or name.rpartition(".")[2] in names:
                yield node


@cache
def by_kind(tree: ast.Module) -> dict[type[ast.AST], list[ast.AST]]:
    """Return all nodes of a module by their class."""
    kinds: dict[type[ast.AST], list[ast.AST]] = {}
    for node in ast.walk(tree):
        kinds.setdefault(type(node), []).append(node)
    return kinds


def nodes(tree: ast.Module, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of these classes."""
    for kind in kinds:
        yield from by_kind(tree).get(kind, ())


@cache
def attributes(tree: ast.Module) -> frozenset[str]:
    """Return the names of all attributes that a module uses."""
    return frozenset(node.attr for node in nodes(tree, ast.Attribute) if isinstance(node, ast.Attribute))


def keyword(call: ast.Call, name: str) -> str:
    """Return the source of a keyword argument, "" if it is not given."""
    return next((ast.unparse(word.value) for word in call.keywords if word.arg == name), "")


def redirects(_: str, tree: ast.Module) -> Iterator[int]:
    """A client that follows redirects can be led into the inside network, and takes its key along."""
    yield from (call.lineno for call in calls(tree, *CLIENTS) if keyword(call, "follow_redirects") not in ("", "False"))
    yield from (
        call.lineno
        for call in calls(tree, "get", "post", "request", "stream")
        if keyword(call, "follow_redirects") == "True"
    )


def proxies(_: str, tree: ast.Module) -> Iterator[int]:
    """Proxies of the environment would see keys and prompts."""
    for call in calls(tree, *CLIENTS):
        is_client = ast.unparse(call.func).endswith("Client")
        if is_client and keyword(call, "trust_env") != "False":
            yield call.lineno


def shells(_: str, tree: ast.Module) -> Iterator[int]:
    """A shell reads what clients and configurations wrote as commands."""
    yield from (
        call.lineno for call in nodes(tree, ast.Call) if isinstance(call, ast.Call) and keyword(call, "shell") == "True"
    )
    yield from (call.lineno for call in calls(tree, "os.system", "os.popen", "create_subprocess_shell"))


def inherited(_: str, tree: ast.Module) -> Iterator[int]:
    """A program that starts without an environment of its own gets the router's keys."""
    for call in calls(tree, "subprocess.run", "subprocess.Popen", "create_subprocess_exec"):
        if not keyword(call, "env"):
            yield call.lineno


def compared(_: str, tree: ast.Module) -> Iterator[int]:
    """A secret that is compared byte by byte tells by its time how much of it was right."""
    for node in nodes(tree, ast.Compare):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            sides = [node.left, *node.comparators]
            words = [
                ast.unparse(side).rsplit(".", 1)[-1] for side in sides if isinstance(side, ast.Name | ast.Attribute)
            ]
            if len(words) == len(sides) and any(
                word.endswith(("secret_sha256", "secret", "token", "password")) for word in words
            ):
                yield node.lineno


def shown_settings(file: str, tree: ast.Module) -> Iterator[int]:
    """A setting that holds a secret shows in every repr of its group."""
    if not file.endswith("config/settings.py"):
        return
    for node in nodes(tree, ast.AnnAssign):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name, value = node.target.id, node.value
            is_secret = name in ("api_key", "token", "secret", "headers", "webhook_url", "password")
            if is_secret and not (isinstance(value, ast.Call) and keyword(value, "repr") == "False"):
                yield node.lineno


def upstream_words(_: str, tree: ast.Module) -> Iterator[int]:
    """What an upstream wrote repeats prompts and forges log lines."""
    for call in calls(tree, "debug", "info", "warning", "error", "exception", "critical"):
        if ast.unparse(call.func).startswith(("log.", "logger.", "_log.")):
            words = {node.attr for arg in call.args for node in ast.walk(arg) if isinstance(node, ast.Attribute)}
            if words & {"said", "body", "content"}:
                yield call.lineno


def repeated_output(_: str, tree: ast.Module) -> Iterator[int]:
    """What a program or a service wrote repeats the key that it was called with."""
    if not attributes(tree) & {"stderr", "reason_phrase"}:
        return
    for function in nodes(tree, ast.FunctionDef, ast.AsyncFunctionDef):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = list(ast.walk(function))
            words = {node.attr for node in inside if isinstance(node, ast.Attribute)}
            names = {node.id for node in inside if isinstance(node, ast.Name)}
            if words & {"stderr", "reason_phrase"} and "DeployError" in names and "cut" not in words:
                yield from (node.lineno for node in inside if isinstance(node, ast.Raise))


def repeated_yaml(file: str, tree: ast.Module) -> Iterator[int]:
    """PyYAML's own message quotes the line, in which a key may stand."""
    if "/config/" not in file and "/commands/" not in file:
        return
    for handler in nodes(tree, ast.ExceptHandler):
        if isinstance(handler, ast.ExceptHandler) and handler.type is not None and handler.name:
            kind = ast.unparse(handler.type)
            if "YAML" in kind or "ScannerError" in kind:
                for node in ast.walk(handler):
                    if isinstance(node, ast.FormattedValue) and ast.unparse(node.value) in (
                        handler.name,
                        f"str({handler.name})",
                    ):
                        yield node.lineno


def slashes(_: str, tree: ast.Module) -> Iterator[int]:
    """A redirect to the same path without its slash sends a document again, in clear behind a proxy."""
    yield from (call.lineno for call in calls(tree, "FastAPI") if keyword(call, "redirect_slashes") != "False")


def tables(_: str, tree: ast.Module) -> Iterator[int]:
    """A table whose cells are not guarded runs formulas in whoever's spreadsheet opens it."""
    yield from (call.lineno for call in calls(tree, "csv.writer", "csv.DictWriter"))


def unsafe_yaml(_: str, tree: ast.Module) -> Iterator[int]:
    """A loader that is not safe runs what a file says."""
    for call in calls(tree, "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
        if not (len(call.args) == 2 and ast.unparse(call.args[1]) == "_LOADER"):
            yield call.lineno


RULES = (
    Rule("redirects", redirects, "don't follow", "httpx.Client(follow_redirects=True)"),
    Rule("proxies", proxies, "pass trust_env=False", "httpx.Client(timeout=5)",
         exceptions=BEHIND_PROXIES),
    Rule("shells", shells, "pass a list of words", "subprocess.run(text, shell=True)"),
    Rule("inherited", inherited, "pass env", "subprocess.run(['vllm'])",
         exceptions=IN_ENGINES),
    Rule("compared", compared, "use hmac.compare_digest", "if token == self.scrape_token: pass"),
    Rule("shown_settings", shown_settings, "pass repr=False to Field", "class A:\n    token: str = Field('')"),
    Rule("upstream_words", upstream_words, "log the kind and the status", "log.warning('%s', outcome.said)"),
    Rule("repeated_output", repeated_output, "cut it by a Redactor",
         "def f():\n    raise DeployError(f'{done.stderr}')"),
    Rule("repeated_yaml", repeated_yaml, "use yaml_problem",
         "try: ...\nexcept yaml.YAMLError as error: raise ValueError(f'no YAML: {error}')"),
    Rule("slashes", slashes, "pass redirect_slashes=False", "FastAPI(title='x')"),
    Rule("tables", tables, "use ledger.reports.csv_file", "csv.writer(out)",
         exceptions=frozenset({"router/spillway_router/ledger/reports/csv_file.py"})),
    Rule("unsafe_yaml", unsafe_yaml, "use safe_load", "yaml.load(text, yaml.Loader)"),
)  # fmt: skip


@cache
def product() -> dict[str, ast.Module]:
    """Return the modules that ship and run, by path."""
    files = (file for file in code() if file.startswith(PRODUCT) and not set(file.split("/")) & set(NOT_SHIPPED))
    return {file: code()[file] for file in files}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_product_has_no_such_pattern(rule: Rule) -> None:
    places = {(file, line) for file, tree in product().items() for line in rule.find(file, tree)}
    wrong = sorted(f"{file}:{line}: {rule.why}" for file, line in places if file not in rule.exceptions)
    assert wrong == []
    assert rule.exceptions <= {file for file, _ in places}, "an exception that is no longer needed"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_seeded_fault_is_found(rule: Rule) -> None:
    assert list(rule.find("router/spillway_router/config/settings.py", ast.parse(rule.fault)))
