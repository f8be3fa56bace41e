"""The Helm chart: what it renders to (by Go's template engine with Sprig, kept in chart/rendered), held against
Kubernetes' own schemas and against what Spillway needs. Where helm is installed: `helm lint`, `helm template`."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator
from tests.deploy.chart.write import CASES, CHART, HERE, fingerprint

from spillway_router.config.load import parse

OWN_SCHEMA = {"ScaledObject", "ServiceMonitor"}
"""Kinds of KEDA and of the Prometheus operator: not in Kubernetes' own schemas."""
VERSIONS = ("1.30", "1.34")


def rendered(case: str) -> dict[str, dict[str, Any]]:
    """Kind/name -> manifest."""
    text = (HERE / "rendered" / f"{case}.yaml").read_text(encoding="utf-8")
    rows = [row for row in yaml.safe_load_all(text) if row]
    return {f"{row['kind']}/{row['metadata']['name']}": row for row in rows}


def container(case: str) -> dict[str, Any]:
    manifest: dict[str, Any] = rendered(case)["StatefulSet/spillway"]["spec"]["template"]["spec"]["containers"][0]
    return manifest


@pytest.mark.parametrize("case", CASES)
def test_what_is_kept_is_what_the_chart_renders_to_now(case: str) -> None:
    first = (HERE / "rendered" / f"{case}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# chart {fingerprint()}", "the chart changed: run tests/deploy/chart/write.py"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_manifests_keep_to_kubernetes_schemas(case: str, version: str) -> None:
    checked = 0
    for name, manifest in rendered(case).items():
        if manifest["kind"] not in OWN_SCHEMA:
            kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "spillway", name
    assert checked >= 4


def test_the_schemas_would_find_a_mistake() -> None:
    manifest = rendered("default")["StatefulSet/spillway"]
    manifest["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


def test_pod_security_gpu_and_probes() -> None:
    pod = rendered("full")["StatefulSet/spillway"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    inside = container("full")
    assert inside["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert inside["resources"]["limits"]["nvidia.com/gpu"] == inside["resources"]["requests"]["nvidia.com/gpu"] == 2
    assert inside["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert inside["livenessProbe"]["httpGet"]["path"] == "/health"
    assert inside["image"].endswith("@sha256:" + 64 * "0")
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["NVIDIA-L4"]
    # Every place that the image writes to is a volume, as its root is read-only.
    assert {"/data", "/models", "/cache", "/run/spillway", "/tmp"} <= {m["mountPath"] for m in inside["volumeMounts"]}
    names = {v["name"] for v in pod["volumes"]} | {
        c["metadata"]["name"] for c in rendered("full")["StatefulSet/spillway"]["spec"]["volumeClaimTemplates"]
    }
    assert {m["name"] for m in inside["volumeMounts"]} <= names


def test_a_router_alone_needs_no_gpu() -> None:
    inside = container("hpa")
    assert inside["args"] == ["spillway", "route"]
    assert not any("gpu" in name for name in {**inside["resources"]["limits"], **inside["resources"]["requests"]})
    kinds = {name.split("/")[0] for name in rendered("hpa")}
    assert kinds == {"ConfigMap", "Service", "StatefulSet", "HorizontalPodAutoscaler"}


def test_services_find_the_pods() -> None:
    for case in CASES:
        manifests = rendered(case)
        labels = manifests["StatefulSet/spillway"]["spec"]["template"]["metadata"]["labels"]
        for name, manifest in manifests.items():
            if name.startswith("Service/"):
                assert manifest["spec"]["selector"].items() <= labels.items()
                assert manifest["spec"]["ports"][0]["targetPort"] == "http"
        assert manifests["StatefulSet/spillway"]["spec"]["serviceName"] in {
            name.split("/")[1] for name in manifests if name.startswith("Service/")
        }


def test_scaling_follows_overflow_and_queue() -> None:
    scaled = rendered("full")["ScaledObject/spillway"]["spec"]
    queries = [trigger["metadata"]["query"] for trigger in scaled["triggers"]]
    assert "spillway_backlog_tokens" in queries[0]
    assert 'decision="overflow"' in queries[1]
    assert scaled["scaleTargetRef"]["name"] == "spillway"
    assert "replicas" not in rendered("full")["StatefulSet/spillway"]["spec"]
    metrics = rendered("hpa")["HorizontalPodAutoscaler/spillway"]["spec"]["metrics"]
    assert [m["pods"]["metric"]["name"] for m in metrics] == ["spillway_backlog_tokens", "spillway_overflow_per_second"]


def test_network_policy_names_clients_and_ports() -> None:
    policy = rendered("full")["NetworkPolicy/spillway"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert len(policy["ingress"][0]["from"]) == 2
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": "http"}]
    ports = {port["port"] for rule in policy["egress"] for port in rule.get("ports", [])}
    assert ports == {53, 443}


def test_the_default_configuration_is_valid() -> None:
    text = rendered("default")["ConfigMap/spillway"]["data"]["spillway.yaml"]
    assert parse(text, {}).listen == "0.0.0.0:8080"


def test_values_keep_to_their_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert list(Draft7Validator(schema).iter_errors(values)) == []
    assert list(Draft7Validator(schema).iter_errors({**values, "autoscaling": {"kind": "magic"}})) != []


@pytest.mark.parametrize("case", CASES)
def test_helm_itself_agrees(case: str) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not on this machine: the chart is held against what Go's template engine rendering of it")
    more = ["--values", str(CASES[case])] if CASES[case] else []
    subprocess.run([helm, "lint", "--strict", str(CHART), *more], check=True, timeout=120)
    rendering = subprocess.run(
        [helm, "template", "spillway", str(CHART), "--namespace", "llm", *more],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    rows = [row for row in yaml.safe_load_all(rendering.stdout) if row]
    assert {f"{row['kind']}/{row['metadata']['name']}": row for row in rows} == rendered(case)
