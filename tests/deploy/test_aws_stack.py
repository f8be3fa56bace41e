"""The CloudFormation template: cfn-lint finds nothing, and moto makes the stack of it, on demand and spot."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from evidence.deploy_commands import ROOT
from moto import mock_aws
from tests.deploy.in_process import dry_run

TEMPLATE = ROOT / "deploy" / "aws" / "template.yaml"
AMI = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # botocore's and moto's own


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A made-up account in moto; no request leaves the process."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        # The public parameter that names the AMI is Amazon's; moto has one of the user's own in its place.
        boto3.client("ssm").put_parameter(Name="/test/ami", Type="String", Value="ami-12c6146b")
        yield


def _stack(purchase: str, **more: str) -> dict[str, Any]:
    given = {
        "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/spillway-gpu:0.1.0",
        "Purchase": purchase,
        "SpillwayYaml": base64.b64encode(b"listen: 0.0.0.0:8080").decode(),
        **more,
    }
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName="spillway",
        TemplateBody=TEMPLATE.read_text(encoding="utf-8").replace(AMI, "/test/ami"),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
    )
    stack: dict[str, Any] = cloudformation.describe_stacks(StackName="spillway")["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return {row["OutputKey"]: row["OutputValue"] for row in stack["Outputs"]}


def _launch(outputs: dict[str, Any]) -> dict[str, Any]:
    versions = boto3.client("ec2").describe_launch_template_versions(LaunchTemplateId=outputs["LaunchTemplateId"])
    data: dict[str, Any] = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    return data


@pytest.mark.usefixtures("cloud")
def test_on_demand_stack() -> None:
    outputs = _stack("on-demand")
    launch = _launch(outputs)
    assert launch["MetadataOptions"]["HttpTokens"] == "required"
    assert launch["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert launch["InstanceType"] == "g4dn.xlarge"
    assert "InstanceMarketOptions" not in launch
    assert launch["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    (group,) = boto3.client("ec2").describe_security_groups(GroupIds=[outputs["SecurityGroupId"]])["SecurityGroups"]
    (rule,) = group["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], [r["CidrIp"] for r in rule["IpRanges"]]) == (
        8080,
        8080,
        ["172.31.0.0/16"],
    )
    (asg,) = boto3.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (asg["MinSize"], asg["MaxSize"], asg["DesiredCapacity"]) == (1, 1, 1)
    boto3.client("cloudformation").delete_stack(StackName="spillway")
    assert boto3.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []


@pytest.mark.usefixtures("cloud")
def test_spot_stack_drains() -> None:
    launch = _launch(_stack("spot", MaxSpotPrice="0.30"))
    assert launch["InstanceMarketOptions"]["MarketType"] == "spot"
    assert launch["InstanceMarketOptions"]["SpotOptions"]["MaxPrice"] == "0.30"
    script = base64.b64decode(launch["UserData"]).decode()
    assert "/meta-data/spot/instance-action" in script
    assert "X-aws-ec2-metadata-token" in script
    steps = ("kill --signal USR1 spillway", "sleep 75", "systemctl stop --no-block spillway.service", "sleep 25")
    places = [script.index(step) for step in (*steps, "kill --signal TERM spillway")]
    assert places == sorted(places), "it stays up for the cloud first, and is cut off last"
    assert 'if [ "spot" = spot ]' in script
    assert "ssm get-parameters-by-path --region us-east-1 --path /spillway/ --with-decryption" in script


@pytest.mark.usefixtures("cloud")
def test_the_machines_script_is_valid_shell(tmp_path: Path) -> None:
    script = base64.b64decode(_launch(_stack("spot"))["UserData"])
    assert len(script) < 16_384, "EC2 takes at most 16 KiB of user data"
    file = tmp_path / "user-data.sh"
    file.write_bytes(script)
    checked = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, timeout=20, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    # The unit and the watcher that it writes end where they should: each here-document is closed.
    assert script.count(b"<<'END'") == script.count(b"\nEND\n") == 4


def test_cfn_lint_finds_nothing() -> None:
    bare = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    lint = [str(Path(sys.executable).parent / "cfn-lint"), "--regions", "us-east-1", "--", str(TEMPLATE)]
    done = subprocess.run(lint, capture_output=True, text=True, timeout=180, env=bare, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_no_secret_is_a_parameter() -> None:
    class Loader(yaml.SafeLoader):
        """CloudFormation's short functions as None."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    names = yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader=Loader)["Parameters"]
    assert [name for name in names if "KEY" in name.upper() or "PASSWORD" in name.upper()] == ["AcceptKey"]


def _template() -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        """CloudFormation's short functions as their text."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: str(getattr(node, "value", "")))
    template: dict[str, Any] = yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader=Loader)
    return template


@pytest.mark.usefixtures("cloud")
def test_an_upgrade_replaces_the_machine_once_it_serves() -> None:
    group = _template()["Resources"]["Group"]
    rolling = group["UpdatePolicy"]["AutoScalingRollingUpdate"]
    assert (rolling["MinInstancesInService"], rolling["WaitOnResourceSignals"]) == (0, True), "there is one GPU"
    assert group["CreationPolicy"]["ResourceSignal"]["Count"] == 1
    script = base64.b64decode(_launch(_stack("on-demand"))["UserData"]).decode()
    assert script.index("http://127.0.0.1:8080/ready") < script.index("signal SUCCESS")
    assert "trap 'signal FAILURE' ERR" in script


def _secrets_program(script: str) -> str:
    return script.split("python3 -c '\n")[1].split("\n'")[0]


@pytest.mark.usefixtures("cloud")
def test_secrets_of_several_lines_are_refused() -> None:
    program = _secrets_program(base64.b64decode(_launch(_stack("on-demand"))["UserData"]).decode())

    def written(value: str) -> subprocess.CompletedProcess[str]:
        rows = json.dumps({"Parameters": [{"Name": "/spillway/KEY", "Value": value}]})
        words = [sys.executable, "-c", program]
        return subprocess.run(words, input=rows, capture_output=True, text=True, timeout=20, check=False)

    odd = "-é $HOME `id` # 'one' \"two\" \\ % =x "
    assert written("gsk_a").stdout == "KEY=gsk_a\n"
    assert written(f"{odd}\r\n").stdout == f"KEY={odd}\n", "docker takes such a line as it is"
    assert written("a\rb").returncode == 1
    several = written('{\n "a": "b"\n}')
    assert (several.returncode, several.stdout) == (1, "")
    assert "the secret KEY has several lines" in several.stderr


@pytest.mark.usefixtures("cloud")
def test_another_size_and_no_log_that_grows(tmp_path: Path) -> None:
    launch = _launch(_stack("on-demand", InstanceType="g6e.2xlarge"))
    assert launch["InstanceType"] == "g6e.2xlarge"
    assert "--log-driver none" in base64.b64decode(launch["UserData"]).decode(), "the journal has it, and turns over"
    given = dry_run(tmp_path, "aws", "--set", "instance=g4dn.2xlarge").out
    assert "InstanceType=g4dn.2xlarge" in given
