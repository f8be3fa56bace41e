"""Models in an object store: whole or not at all, resumed after an interruption, and checked on arrival.

The client is boto3, the store is moto's S3 behind it: no account, and no request leaves the process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from tests.deploy.in_process import spillway

from spillway_server.obstacle import Obstacle
from spillway_server.planning.hardware import Hardware
from spillway_server.planning.models import ModelSpec, Sources
from spillway_server.stores.destination import bring
from spillway_server.stores.located import described, fetched, served_name
from spillway_server.stores.manifest import NAME, Manifest, manifest_from, manifest_of
from spillway_server.stores.object_store import ObjectStore, Place, StoreError, place_of
from spillway_server.stores.transfer import fetch, push

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # botocore's and moto's own
PART = 5 * 1024 * 1024
"""The least size of a part that S3 allows."""
PLACE = Place("models", "team/tiny")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 512,
    "max_position_embeddings": 2048, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An empty bucket, and the environment in which boto3 finds it."""
    variables = {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=PLACE.bucket)
        yield client


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A converted folder; its weights take three parts."""
    folder = tmp_path / "converted"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * (2 * PART // 256) + b"end")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "secret").write_text("not the model's")
    return folder


class Counting:
    """boto3's client, which counts the calls and can fail at one of them."""

    def __init__(self, client: Any, fails_at: str = "", after: int = 0) -> None:
        self.client, self.fails_at, self.after = client, fails_at, after
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        if name == self.fails_at and self.calls.count(name) > self.after:
            from botocore.exceptions import ConnectionClosedError

            raise ConnectionClosedError(endpoint_url="http://gone")
        return getattr(self.client, name)


def ignore(_line: str) -> None: ...


def test_what_was_pushed_is_fetched_byte_by_byte(account: Any, model: Path, tmp_path: Path) -> None:
    store = ObjectStore(account, PLACE.bucket, PART)
    manifest = push(model, store, PLACE, ignore)
    assert isinstance(manifest, Manifest)
    assert [entry.name for entry in manifest.files] == ["config.json", "model.safetensors"]
    home = fetch(store, PLACE, tmp_path / "there", ignore)
    assert isinstance(home, Path)
    assert home.name == f"tiny-{manifest.digest[:12]}"
    for entry in manifest.files:
        assert (home / entry.name).read_bytes() == (model / entry.name).read_bytes()
    again = Counting(account)
    assert fetch(ObjectStore(again, PLACE.bucket), PLACE, tmp_path / "there", ignore) == home
    assert again.calls.count("get_object") == 1  # the manifest


def test_an_interrupted_upload_goes_on_with_the_parts_that_are_missing(account: Any, model: Path) -> None:
    first = push(model, ObjectStore(Counting(account, "upload_part", 2), PLACE.bucket, PART), PLACE, ignore)
    assert isinstance(first, Obstacle)
    assert "Run the same command again" in first.fix
    assert isinstance(fetch(ObjectStore(account, PLACE.bucket), PLACE, model.parent / "half", ignore), Obstacle)
    second = Counting(account)
    assert isinstance(push(model, ObjectStore(second, PLACE.bucket, PART), PLACE, ignore), Manifest)
    assert second.calls.count("upload_part") == 1
    assert second.calls.count("put_object") == 1  # the manifest; config.json was there
    third = Counting(account)
    assert isinstance(push(model, ObjectStore(third, PLACE.bucket, PART), PLACE, ignore), Manifest)
    assert not {"upload_part", "create_multipart_upload"} & set(third.calls)


def test_parts_of_another_file_are_not_taken_for_this_one(account: Any, model: Path, tmp_path: Path) -> None:
    """The weights changed after an interrupted upload."""
    push(model, ObjectStore(Counting(account, "upload_part", 1), PLACE.bucket, PART), PLACE, ignore)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[::-1])
    store = ObjectStore(account, PLACE.bucket, PART)
    assert isinstance(push(model, store, PLACE, ignore), Manifest)
    home = fetch(store, PLACE, tmp_path / "there", ignore)
    assert isinstance(home, Path)
    assert (home / "model.safetensors").read_bytes() == weights.read_bytes()


def test_a_changed_model_is_never_fetched_half_old_and_half_new(account: Any, model: Path, tmp_path: Path) -> None:
    store = ObjectStore(account, PLACE.bucket, PART)
    assert isinstance(push(model, store, PLACE, ignore), Manifest)
    (model / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 600}))
    failing = ObjectStore(Counting(account, "put_object", 0), PLACE.bucket, PART)
    assert isinstance(push(model, failing, PLACE, ignore), Obstacle)
    refused = fetch(store, PLACE, tmp_path / "there", ignore)
    assert isinstance(refused, Obstacle)
    assert "no whole model" in refused.reason


def test_a_file_that_was_changed_in_the_store_is_refused(account: Any, model: Path, tmp_path: Path) -> None:
    store = ObjectStore(account, PLACE.bucket, PART)
    push(model, store, PLACE, ignore)
    account.put_object(Bucket=PLACE.bucket, Key=PLACE.key("config.json"), Body=b"{}" + b" " * 500)
    refused = fetch(store, PLACE, tmp_path / "there", ignore)
    assert isinstance(refused, Obstacle)
    assert "SHA-256 is wrong" in refused.reason
    assert not list((tmp_path / "there").rglob("config.json"))


def test_an_interrupted_download_goes_on_where_it_was(account: Any, model: Path, tmp_path: Path) -> None:
    store = ObjectStore(account, PLACE.bucket, PART)
    manifest = push(model, store, PLACE, ignore)
    assert isinstance(manifest, Manifest)
    home = tmp_path / "there" / f"tiny-{manifest.digest[:12]}"
    home.mkdir(parents=True)
    whole = (model / "model.safetensors").read_bytes()
    (home / "model.safetensors.partial").write_bytes(whole[:PART])
    asked: list[str] = []

    class Ranges(Counting):
        def __getattr__(self, name: str) -> Any:
            call = getattr(self.client, name)
            if name != "get_object":
                return call
            return lambda **fields: asked.append(fields.get("Range", "")) or call(**fields)

    assert fetch(ObjectStore(Ranges(account), PLACE.bucket), PLACE, tmp_path / "there", ignore) == home
    assert f"bytes={PART}-" in asked
    assert (home / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    "files",
    [
        [{"name": "../evil", "bytes": 1, "sha256": "0" * 64}],
        [{"name": "/etc/passwd", "bytes": 1, "sha256": "0" * 64}],
        [{"name": "a/../../b", "bytes": 1, "sha256": "0" * 64}],
        [{"name": ".ssh/authorized_keys", "bytes": 1, "sha256": "0" * 64}],
        [{"name": "a\\..\\b", "bytes": 1, "sha256": "0" * 64}],
        [{"name": "a", "bytes": -1, "sha256": "0" * 64}],
        [{"name": "a", "bytes": 1, "sha256": "x"}],
        [{"name": NAME, "bytes": 1, "sha256": "0" * 64}],
        [],
        [{"name": "a", "bytes": 1, "sha256": "0" * 64}] * 2,
        "no list",
    ],
)
def test_a_manifest_from_a_store_names_no_file_outside_of_the_folder(files: Any) -> None:
    assert isinstance(manifest_from(json.dumps({"format": 1, "files": files})), Obstacle)


def test_what_is_no_model_is_not_pushed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    for name in ("empty", "notes"):
        assert isinstance(manifest_of(tmp_path / name), Obstacle)
    for place in ("http://x/y", "hub:one", "s3://", "bucket/prefix"):
        assert isinstance(bring(tmp_path / "notes", place, ignore), Obstacle)
    assert place_of("s3://b/x/y/") == Place("b", "x/y")
    assert served_name("s3://b/x/y/") == "y"


def test_a_model_in_a_store_is_planned_by_its_configuration_and_served_from_a_folder(
    account: Any, model: Path, tmp_path: Path
) -> None:
    store = ObjectStore(account, PLACE.bucket, PART)
    push(model, store, PLACE, ignore)
    spec = described(str(PLACE), tmp_path / "plans", Hardware((), 2, 2**34), Sources(tmp_path))
    assert isinstance(spec, ModelSpec)
    assert spec.served_name == "tiny"
    assert spec.shape is not None
    assert spec.shape.weight_bytes == (model / "model.safetensors").stat().st_size
    assert not list((tmp_path / "plans").rglob("*.safetensors"))
    path = fetched(str(PLACE), tmp_path / "stores", ignore)
    assert isinstance(path, str)
    assert (Path(path) / "model.safetensors").is_file()
    assert fetched("owner/name", tmp_path, ignore) == "owner/name"


def test_a_single_file_is_fetched_as_one(account: Any, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    store = ObjectStore(account, PLACE.bucket)
    assert isinstance(push(tmp_path / "x.gguf", store, PLACE, ignore), Manifest)
    path = fetch(store, PLACE, tmp_path / "there", ignore)
    assert isinstance(path, Path)
    assert (path.name, path.read_bytes()) == ("x.gguf", b"GGUF")


def test_wrong_credentials_and_buckets_are_told(account: Any, model: Path) -> None:
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        ObjectStore(account, "nothing-here").put_bytes("a", b"", {})
    refused = push(model, ObjectStore(account, "nothing-here"), Place("nothing-here", "x"), ignore)
    assert isinstance(refused, Obstacle)
    assert "NoSuchBucket" in refused.reason


DEPLOY = (
    "deploy", "runpod", "--gpu", "l4", "--price", "0.44", "--image", "me/spillway@sha256:" + "0" * 64, "--dry-run"
)  # fmt: skip
SECRETS = ("--secret", "AWS_ACCESS_KEY_ID", "--secret", "AWS_SECRET_ACCESS_KEY")


def test_deploy_names_what_it_brings_along_and_what_the_machine_needs(model: Path, tmp_path: Path) -> None:
    lora = tmp_path / "adapter"
    lora.mkdir()
    (lora / "adapter_config.json").write_text('{"r": 8}')
    to = ("--model", str(model), "--to", "s3://models/team/tiny", "--lora", f"legal={lora}")
    refused = spillway(tmp_path, *DEPLOY, *to)
    assert (refused.status, "--secret AWS_ACCESS_KEY_ID" in refused.err) == (1, True), refused.err
    shown = spillway(tmp_path, *DEPLOY, *to, *SECRETS)
    assert shown.status == 0, shown.err
    assert f"spillway push {model} s3://models/team/tiny" in " ".join(shown.out.split())
    assert "model: s3://models/team/tiny" in shown.out
    assert "legal: s3://models/team/tiny-loras/legal" in shown.out
    assert "model: tiny" in shown.out
    unplaced = spillway(tmp_path, *DEPLOY, "--model", str(model))
    assert (unplaced.status, "--to s3://BUCKET/PREFIX" in unplaced.err) == (1, True)
    nowhere = spillway(tmp_path, *DEPLOY, "--model", "owner/name", "--to", "s3://models/x", *SECRETS)
    assert (nowhere.status, "is not" in nowhere.err) == (1, True)


def test_deploy_plans_a_model_in_a_store_by_its_configuration(account: Any, model: Path, tmp_path: Path) -> None:
    push(model, ObjectStore(account, PLACE.bucket), PLACE, ignore)
    here = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    shutil.rmtree(model)
    shown = spillway(tmp_path, *DEPLOY, "--model", str(PLACE), *SECRETS, env=here)
    assert (shown.status, "model: s3://models/team/tiny" in shown.out) == (0, True), shown.err


def test_the_command_pushes_and_says_what(account: Any, model: Path, tmp_path: Path) -> None:
    here = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    done = spillway(tmp_path, "push", str(model), str(PLACE), "--json", env=here)
    assert done.status == 0, done.err
    assert (json.loads(done.out)["files"], json.loads(done.out)["model"]) == (2, str(PLACE))
    assert account.head_object(Bucket=PLACE.bucket, Key=PLACE.key(NAME))["ContentLength"] > 0
    refused = spillway(tmp_path, "push", str(model), "hub:me/tiny", env={"HF_HOME": str(tmp_path)})
    assert (refused.status, "HF_TOKEN" in refused.err + refused.out) == (1, True)
