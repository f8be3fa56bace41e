"""Orders that can't work are refused before anything is rented, with all reasons and their cures at once."""

from __future__ import annotations

import http.server
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from evidence.deploy_commands import MODEL, TARGETS
from tests.deploy.in_process import dry_run, spillway

from spillway_router.deploy import TARGETS as ALL
from spillway_router.deploy.inspection import order_problems
from spillway_router.deploy.order import DeploymentOrder
from spillway_router.deploy.readiness import await_ready
from spillway_router.testing.threaded_server import threaded_server

CLOUD = ("--cloud", "groq=openai/gpt-oss-20b")
GROQ = (*CLOUD, "--secret", "GROQ_API_KEY")
ENGINE = f'backends: [{{name: local, provider: vllm, base_url: "http://127.0.0.1:8001/v1", model: "{MODEL}"}}]\n'
FILES = {
    "broken": "listen: [",
    "loopback": f"listen: 127.0.0.1:8080\n{ENGINE}",
    "port": f"listen: 0.0.0.0:9090\n{ENGINE}",
    "bare": "listen: 0.0.0.0:8080\nbackends: []\n",
    "cloud": "listen: 0.0.0.0:8080\nbackends: [{name: groq, provider: groq, model: openai/gpt-oss-20b}]\n",
    "password": f'listen: 0.0.0.0:8080\n{ENGINE}ledger: {{url: "postgresql://spillway:s3cretpass@db:5432/s"}}\n',
    "key": "listen: 0.0.0.0:8080\nbackends: [{name: g, provider: groq, model: openai/gpt-oss-20b, api_key: gsk_a}]\n",
    "variable": f'listen: 0.0.0.0:8080\n{ENGINE}ledger: {{url: "postgresql://s:${{DB_PASSWORD}}@db:5432/s"}}\n',
}
EVERYWHERE = [
    (("--cloud", "nosuch=foo", "--budget", "5"), "provider 'nosuch' is not known"),
    (("--cloud", "groq=nosuchmodel", "--secret", "GROQ_API_KEY", "--budget", "5"), "no known price"),
    (GROQ, "could be paid without limit"),
    ((*GROQ, "--budget", "much"), "is not an amount"),
    (("--set", "severless=1"), "no such setting"),
    (("--secret", "GROQ=gsk_x"), "is not the name of a variable"),
    (("--send", "broken"), "YAML"),
    (("--send", "loopback"), "can't be reached from outside"),
    (("--send", "port"), "only port 8080"),
    (("--send", "bare"), "none is the machine's own engine"),
    (("--send", "cloud", "--secret", "GROQ_API_KEY"), "could be paid without limit"),
    (("--send", "password"), "holds a secret"),
    (("--send", "key"), "holds a secret"),
    (("--send", "variable"), "${DB_PASSWORD} is not set"),
    (("--send", "absent"), "does not exist"),
]
SOME = [
    ("runpod", ("--set", "serverless=1", "--set", "workers_max=abc"), "the value has the form"),
    ("runpod", ("--set", "serverless=yes"), "the value has the form"),
    ("runpod", ("--place", "somewhere"), "is not a place"),
    ("vast", (*CLOUD, "--budget", "5", "--secret", "OTHER"), "by --secret GROQ_API_KEY"),
    ("vast", ("--volume", "vol1"), "mounts no existing volume"),
    ("aws", ("--name", "my_stack"), "is not a name"),
    ("aws", ("--disk", "20"), "at least 60 GB"),
    ("aws", ("--volume", "vol1"), "mounts no existing volume"),
    ("aws", ("--set", "client_cidr=everybody"), "the value has the form"),
    ("kubernetes", ("--name", "Big_Name"), "is not a name"),
    ("kubernetes", ("--volume", "vol1"), "mounts no existing volume"),
    ("kubernetes", ("--place", "My_Namespace"), "is not a place"),
]


def write(folder: Path) -> None:
    """Write the configurations to send, of which one is too long for a stack."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    rows = "".join(f"  m{number}: {{chain: [local]}}\n" for number in range(200))
    (folder / "long").write_text(f"listen: 0.0.0.0:8080\n{ENGINE}aliases:\n{rows}")


@pytest.mark.parametrize(("words", "said"), EVERYWHERE)
def test_every_target_refuses_what_can_not_work(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    write(tmp_path)
    for target in TARGETS:
        done = dry_run(tmp_path, target, *words)
        assert done.status == 1, f"{target} takes {words}"
        assert said in done.err, target
        assert "s3cretpass" not in done.out + done.err


@pytest.mark.parametrize(("target", "words", "said"), SOME)
def test_a_target_refuses_what_it_can_not_do(tmp_path: Path, target: str, words: tuple[str, ...], said: str) -> None:
    done = dry_run(tmp_path, target, *words)
    assert done.status == 1
    assert said in done.err


def test_a_configuration_that_is_too_long_for_a_stack_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    done = dry_run(tmp_path, "aws", "--send", "long")
    assert "the target takes 4096" in done.err
    assert dry_run(tmp_path, "kubernetes", "--send", "long").status == 0


def test_all_reasons_are_told_at_once_and_nothing_is_asked(tmp_path: Path) -> None:
    order = ("--model", MODEL, "--image", "r/i:1", "--yes", *TARGETS["aws"])
    done = spillway(tmp_path, "deploy", "aws", *order, *GROQ, "--name", "a_b", "--disk", "20", env={"PATH": "/none"})
    assert done.status == 1
    assert all(said in done.err for said in ("a_b", "at least 60 GB", "without limit", "nothing was rented"))
    assert not (tmp_path / "data").exists()


def test_an_order_that_works_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(FILES["variable"])
    for target in TARGETS:
        for more in (
            (*GROQ, "--budget", "5"),
            (*GROQ, "--budget", "none"),
            ("--send", "mine", "--secret", "DB_PASSWORD"),
        ):
            done = dry_run(tmp_path, target, *more)
            assert done.status == 0, f"{target} {more}: {done.err}"
    limited = dry_run(tmp_path, "runpod", *GROQ, "--budget", "5", "--json").out
    assert "limit_usd: '5'" in json.loads(limited)["steps"][0]["body"]["env"]["SPILLWAY_YAML"]


def test_the_model_of_a_file_to_send_has_to_fit(tmp_path: Path) -> None:
    (tmp_path / "large").write_text(f"listen: 0.0.0.0:8080\nserver: {{model: Qwen/Qwen2.5-7B-Instruct}}\n{ENGINE}")
    done = spillway(tmp_path, "deploy", "vast", "--gpu", "t4", "--price", "1", "--send", "large", "--dry-run")
    assert "does not fit" in done.err


def test_hosts_are_asked_for_the_driver_that_the_image_needs(tmp_path: Path) -> None:
    image = ("--image", "r/spillway-gpu:0.1.0-cu129")
    for more, cuda in (((), "13.0"), (image, "12.9"), (("--set", "cuda=12.8"), "12.8")):
        pod, offer = (json.loads(dry_run(tmp_path, target, *more, "--json").out) for target in ("runpod", "vast"))
        assert pod["steps"][0]["body"]["gpu"]["minCudaVersion"] == cuda
        assert f"cuda_vers>={cuda}" in offer["steps"][0]["argv"][3]


def test_a_worker_for_an_l4_is_an_l4(tmp_path: Path) -> None:
    order = ("runpod", "--gpu", "l4", "--price", "1", "--model", MODEL, "--set", "serverless=1", "--dry-run", "--json")
    (step,) = json.loads(spillway(tmp_path, "deploy", *order).out)["steps"]
    assert step["body"]["gpu"]["pools"] == ["AMPERE_24"]
    assert step["body"]["gpu"]["excludedTypes"] == ["NVIDIA RTX A5000", "NVIDIA GeForce RTX 3090"]


@pytest.mark.parametrize("target", TARGETS)
def test_only_what_was_deployed_from_here_is_released(tmp_path: Path, target: str) -> None:
    done = spillway(tmp_path, "deploy", target, "prod-bucket", "--destroy", "--yes", env={"PATH": "/none"})
    assert done.status == 1
    assert "was not deployed from here" in done.err


def test_the_inspection_needs_no_clock_and_no_account() -> None:
    order = DeploymentOrder(gpu="l4", model=MODEL, price_per_hour=Decimal(1), image="r/i:1", clouds=(("groq", "x"),))
    problems = order_problems(order, ALL["vast"].accepted, date(2026, 11, 28))
    assert len(problems) == len(set(problems)) >= 1


@contextmanager
def machine(statuses: list[int]) -> Iterator[str]:
    """A machine that answers /ready with these statuses, the last one for ever."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Quiet."""

    with threaded_server(Handler) as url:
        yield url


def test_a_rented_machine_is_asked_until_it_is_ready() -> None:
    slept: list[float] = []
    addresses = iter(["", "", *[None] * 9])
    with machine([503, 503, 200]) as url:
        readiness = await_ready(lambda: url if next(addresses) is None else "", 60, lambda: sum(slept), slept.append)
    assert (readiness.ready, readiness.waited_s, readiness.url) == (True, 20.0, url)


def test_a_machine_that_never_gets_ready_says_what_it_answered() -> None:
    slept: list[float] = []
    with machine([503]) as url:
        readiness = await_ready(lambda: url, 30, lambda: sum(slept), slept.append)
    assert (readiness.ready, readiness.last) == (False, f"{url}/ready answers 503")
    assert sum(slept) <= 30
