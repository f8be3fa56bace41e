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
import yaml
from evidence.deploy_commands import MODEL, TARGETS
from tests.deploy.in_process import dry_run, spillway

from spillway_router.deploy import TARGETS as ALL
from spillway_router.deploy.inspection import order_problems
from spillway_router.deploy.order import DeploymentOrder
from spillway_router.deploy.readiness import await_ready
from spillway_router.testing.threaded_server import threaded_server

CLOUD = ("--cloud", "groq=openai/gpt-oss-20b")
GROQ = (*CLOUD, "--secret", "GROQ_API_KEY")
SERVER = f'listen: 0.0.0.0:8080\nserver: {{model: "{MODEL}"}}\n'
BACKENDS = f'backends: [{{name: local, provider: vllm, base_url: "http://127.0.0.1:8001/v1", model: "{MODEL}"}}]\n'
LEDGER = 'ledger: {url: "sqlite:////data/spillway.db"}\n'
ENGINE = SERVER + BACKENDS
WHOLE = ENGINE + LEDGER
FILES = {
    "broken": "listen: [",
    "loopback": WHOLE.replace("0.0.0.0:8080", "127.0.0.1:8080"),
    "port": WHOLE.replace("8080", "9090"),
    "bare": f"{SERVER}backends: []\n{LEDGER}",
    "cloud": f"{SERVER}{LEDGER}backends: [{{name: groq, provider: groq, model: openai/gpt-oss-20b}}]\n",
    "password": f'{ENGINE}ledger: {{url: "postgresql://spillway:s3cretpass@db:5432/s"}}\n',
    "parameter": f'{ENGINE}ledger: {{url: "postgresql://spillway@db:5432/s?sslmode=require&password=s3cretpass"}}\n',
    "half": f'{ENGINE}ledger: {{url: "postgresql://spillway:s3cretpass${{DB_PASSWORD}}@db:5432/s"}}\n',
    "key": f"{SERVER}{LEDGER}backends: [{{name: g, provider: groq, model: openai/gpt-oss-20b, api_key: gsk_a}}]\n",
    "header": f"{WHOLE}telemetry: {{otlp_url: 'https://o.example.org', headers: {{authorization: s3cretpass}}}}\n",
    "webhook": f'{WHOLE}alerts: {{webhook_url: "https://hooks.example.org/s3cretpass"}}\n',
    "signed": f"{WHOLE}alerts: {{secret: s3cretpass}}\n",
    "metrics": f"{WHOLE}metrics: {{token: s3cretpass-s3cretpass-s3cretpass}}\n",
    "variable": f'{ENGINE}ledger: {{url: "postgresql://s:${{DB_PASSWORD}}@db:5432/s"}}\n',
    "foreign": WHOLE.replace("127.0.0.1:8001", "10.0.0.7:8001"),
    "clash": WHOLE.replace("127.0.0.1:8001", "127.0.0.1:8080"),
    "elsewhere": f'{ENGINE}ledger: {{url: "sqlite:////etc/spillway/spillway.db"}}\n',
    "counted": f"{WHOLE}gpu: {{count: 3}}\n",
    "named": f"{WHOLE}gpu: {{name: rtx-4090, price_per_hour: 1}}\n",
    "priced": f"{WHOLE}gpu: {{price_per_hour: 77}}\n",
    "stages": WHOLE.replace("server: {", "server: {vllm_args: [--pipeline-parallel-size, '4'], "),
    "split": WHOLE.replace("server: {", "server: {vllm_args: [-tp, '8'], "),
    "nothing": WHOLE.replace("server: {", "server: {vllm_args: [--max-model-len, '0'], "),
    "share": WHOLE.replace("server: {", "server: {vllm_args: [--gpu-memory-utilization, '2'], "),
    "beside": f"{WHOLE}confidence: {{calibration: calibration.json}}\n",
    "other": WHOLE.replace(f'server: {{model: "{MODEL}"}}', "server: {model: Qwen/Qwen2.5-14B-Instruct-AWQ}"),
}
EVERYWHERE = [
    (("--cloud", "nosuch=foo", "--budget", "5"), "provider 'nosuch' is not known"),
    (("--cloud", "groq=nosuchmodel", "--secret", "GROQ_API_KEY", "--budget", "5"), "no known price"),
    (GROQ, "could be paid without limit"),
    ((*GROQ, "--budget", "much"), "is not an amount"),
    (("--set", "severless=1"), "no such setting"),
    (("--secret", "GROQ=gsk_x"), "is not the name of a variable"),
    (("--secret", "SPILLWAY_YAML"), "is a variable that the image needs itself"),
    (("--secret", "HF_HOME"), "is a variable that the image needs itself"),
    (("--image", "r/i:1; reboot"), "is not the name of an image"),
    (("--image", "r/i:1 --privileged"), "is not the name of an image"),
    (("--image", "R/I:1"), "is not the name of an image"),
    (("--cloud", "vllm=m", "--budget", "5"), "is an engine of one's own and no cloud"),
    (("--price", "0.00000001"), "from 0.001"),
    (("--send", "broken"), "YAML"),
    (("--send", "loopback"), "can't be reached from outside"),
    (("--send", "port"), "only port 8080"),
    (("--send", "bare"), "none is the machine's own engine"),
    (("--send", "cloud", "--secret", "GROQ_API_KEY"), "could be paid without limit"),
    (("--send", "password"), "holds a secret"),
    (("--send", "key"), "holds a secret"),
    (("--send", "variable"), "${DB_PASSWORD} is not set"),
    (("--send", "absent"), "does not exist"),
    (("--send", "parameter"), "holds a secret"),
    (("--send", "half", "--secret", "DB_PASSWORD"), "holds a secret"),
    (("--send", "header"), "holds a secret"),
    (("--send", "webhook"), "holds a secret"),
    (("--send", "signed"), "holds a secret"),
    (("--send", "metrics"), "holds a secret"),
    (("--send", "foreign"), "the engine that the machine starts"),
    (("--send", "clash"), "the engine that the machine starts"),
    (("--send", "elsewhere"), "is on no volume of the machine"),
    (("--send", "counted"), "gpu.count: the file says 3"),
    (("--send", "priced"), "gpu.price_per_hour: the file says 77"),
    (("--send", "stages"), "the vLLM arguments use 4 GPUs, and 1 would be rented"),
    (("--send", "split"), "can't be divided over 8 devices"),
    (("--send", "nothing"), "--max-model-len 0 is less than 1"),
    (("--send", "share"), "--gpu-memory-utilization 2 is no share"),
    (("--send", "other"), "is not what --send launches"),
    (("--send", "beside"), "the machine gets the configuration alone"),
]
SOME = [
    ("runpod", ("--set", "serverless=1", "--set", "workers_max=abc"), "the value has the form"),
    ("runpod", ("--set", "serverless=yes"), "the value has the form"),
    ("runpod", ("--set", "serverless=1", "--set", "idle_s=3601"), "the value has the form"),
    ("runpod", ("--name", " "), "is not a name"),
    ("runpod", ("--name", "x" * 192), "is not a name"),
    ("runpod", ("--name", "a\nb"), "is not a name"),
    ("vast", ("--name", "x" * 65), "is not a name"),
    ("aws", ("--name", "x" * 129), "is not a name"),
    ("kubernetes", ("--name", "1st"), "is not a name"),
    ("kubernetes", ("--name", "x" * 54), "is not a name"),
    ("runpod", ("--place", "somewhere"), "is not a place"),
    ("vast", (*CLOUD, "--budget", "5", "--secret", "OTHER"), "by --secret GROQ_API_KEY"),
    ("vast", ("--volume", "vol1"), "mounts no existing volume"),
    ("runpod", ("--set", "serverless=1", "--set", "workers_max=0"), "must be at least 1"),
    ("runpod", ("--set", "serverless=1", "--set", "workers_min=3"), "not less than workers_min (3)"),
    ("runpod", ("--set", "serverless=1", *GROQ, "--budget", "5"), "every budget would count once per machine"),
    ("vast", ("--name", "--ssh"), "is not a name"),
    ("aws", ("--set", "instance=p5.48xlarge"), "p5.48xlarge has not 1 t4"),
    ("aws", ("--set", "instance=g4dn.12xlarge"), "g4dn.12xlarge has not 1 t4"),
    ("aws", ("--set", "instance=g4dn.48xlarge"), "g4dn.48xlarge has not 1 t4"),
    ("aws", ("--set", "client_cidr=10.0.0.0/40"), "write a network"),
    ("aws", ("--name", "my_stack"), "is not a name"),
    ("aws", ("--disk", "20"), "at least 60 GB"),
    ("aws", ("--volume", "vol1"), "mounts no existing volume"),
    ("aws", ("--set", "client_cidr=everybody"), "the value has the form"),
    ("kubernetes", ("--name", "Big_Name"), "is not a name"),
    ("kubernetes", ("--volume", "vol1"), "mounts no existing volume"),
    ("kubernetes", ("--place", "My_Namespace"), "is not a place"),
]


def write(folder: Path, target: str) -> None:
    """Write the configurations to send, of which one is too long for a stack. The usual order for RunPod has a
    volume."""
    for name, text in FILES.items():
        (folder / name).write_text(text.replace("////data", "////workspace/data") if target == "runpod" else text)
    rows = "".join(f"  m{number}: {{chain: [local]}}\n" for number in range(200))
    (folder / "long").write_text(f"{WHOLE}aliases:\n{rows}")


@pytest.mark.parametrize(("words", "said"), EVERYWHERE)
def test_every_target_refuses_what_can_not_work(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    for target in TARGETS:
        write(tmp_path, target)
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
    write(tmp_path, "aws")
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
    (tmp_path / "large").write_text(
        WHOLE.replace(f'server: {{model: "{MODEL}"}}', "server: {model: Qwen/Qwen2.5-7B-Instruct}")
    )
    done = spillway(tmp_path, "deploy", "vast", "--gpu", "t4", "--price", "1", "--send", "large", "--dry-run")
    assert "does not fit" in done.err


def test_a_file_that_leaves_a_gpu_idle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "idle").write_text(WHOLE + "gpu: {count: 2}\n")
    (tmp_path / "both").write_text(
        FILES["stages"].replace("--pipeline-parallel-size, '4'", "-dp, '2'") + "gpu: {count: 2}\n"
    )
    order = ("vast", "--gpu", "l4", "--gpus", "2", "--price", "1", "--dry-run", "--send")
    assert "use 1 of 2 GPUs" in spillway(tmp_path, "deploy", *order, "idle").err
    both = spillway(tmp_path, "deploy", *order, "both")
    assert both.status == 0, both.err


def test_a_ledger_is_where_the_target_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "relative").write_text(ENGINE + 'ledger: {url: "sqlite:///spillway.db"}\n')
    (tmp_path / "whole").write_text(WHOLE)
    (tmp_path / "volume").write_text(WHOLE.replace("/data/", "/workspace/data/"))
    assert dry_run(tmp_path, "vast", "--send", "relative").status == 0, "it counts from /data there"
    assert "can't be written to" in dry_run(tmp_path, "kubernetes", "--send", "relative").err
    assert dry_run(tmp_path, "vast", "--send", "whole").status == 0
    assert "below /workspace" in dry_run(tmp_path, "runpod", "--send", "whole").err, "only its volume lasts"
    assert dry_run(tmp_path, "runpod", "--send", "volume").status == 0


def test_a_machine_has_the_time_that_its_answers_get_when_it_stops(tmp_path: Path) -> None:
    (tmp_path / "long").write_text(f"{WHOLE}limits: {{stop_s: 300, stop_unready_s: 20}}\n")
    assert "a stop may take 370 s" in dry_run(tmp_path, "aws", "--send", "long").err
    chart = dry_run(tmp_path, "kubernetes", "--send", "long", "--json")
    (step,) = json.loads(chart.out)["steps"]
    assert yaml.safe_load(step["stdin"])["terminationGracePeriodSeconds"] == 380
    (plain,) = json.loads(dry_run(tmp_path, "kubernetes", "--json").out)["steps"]
    assert "terminationGracePeriodSeconds" not in yaml.safe_load(plain["stdin"]), "the chart's own is long enough"


def test_what_is_near_to_a_mistake_is_taken(tmp_path: Path) -> None:
    digest = "@sha256:" + 64 * "a"
    for image in ("ghcr.io/o/spillway-gpu:0.1.0-cu129", f"localhost:5000/a/b__c-d.e{digest}", "user/spillway"):
        assert dry_run(tmp_path, "vast", "--image", image).status == 0, image
    for more in (("--set", "instance=g4dn.4xlarge"), ("--set", "client_cidr=10.1.2.3/16")):
        assert dry_run(tmp_path, "aws", *more).status == 0, more
    alone = ("--set", "serverless=1", "--set", "workers_max=1", *GROQ, "--budget", "5")
    assert dry_run(tmp_path, "runpod", *alone).status == 0


def test_copies_of_a_service_share_no_ledger_in_a_file(tmp_path: Path) -> None:
    order = ("sky", "--gpu", "l4", "--price", "1", "--model", MODEL, "--dry-run", *GROQ, "--budget", "5")
    assert spillway(tmp_path, "deploy", *order, "--set", "service=1").status == 0
    both = spillway(tmp_path, "deploy", *order, "--set", "service=1", "--set", "replicas=2")
    assert "up to 2 machines would each have a SQLite ledger" in both.err


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
