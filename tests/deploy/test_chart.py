"""The Helm chart: what it renders to (by helm, kept in chart/rendered), held against
Kubernetes' own schemas and against what Spillway needs. Where helm is installed: `helm lint`, `helm template`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator
from tests.deploy.chart.write import CASES, CHART, HERE, fingerprint
from tests.deploy.tools import tool

from spillway_router.config.load import parse

OWN_SCHEMA = {"ScaledObject", "ServiceMonitor"}
"""Kinds of KEDA and of the Prometheus operator: not in Kubernetes' own schemas."""
VERSIONS = ("1.30", "1.33", "1.37")


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
    assert pod["automountServiceAccountToken"] is True, "it looks for engines by Kubernetes' API"
    plain = rendered("default")["StatefulSet/spillway"]["spec"]["template"]["spec"]
    assert plain["automountServiceAccountToken"] is False
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
    assert {"ConfigMap", "Service", "StatefulSet", "HorizontalPodAutoscaler"} <= kinds
    claims = rendered("hpa")["StatefulSet/spillway"]["spec"]["volumeClaimTemplates"]
    assert [claim["metadata"]["name"] for claim in claims] == ["data"], "a router keeps no models"
    assert {"/models", "/cache", "/dev/shm"}.isdisjoint(mount["mountPath"] for mount in inside["volumeMounts"])


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
    assert len(policy["ingress"][0]["from"]) == 2, "named clients and monitoring replace the defaults"
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": "http"}]
    ports = {port["port"] for rule in policy["egress"] for port in rule.get("ports", [])}
    assert ports == {53, 443, 5433, 6443, 8001}, "6443: Kubernetes' API, by which engines are found"
    front = rendered("hpa")["NetworkPolicy/spillway"]["spec"]
    assert {"namespaceSelector": {}} in front["ingress"][0]["from"], "the ingress controller and Prometheus may come"
    assert {"ipBlock": {"cidr": "0.0.0.0/0"}} in front["ingress"][0]["from"], "whoever uses the load balancer may come"
    assert {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]} in front["egress"]
    assert {"ports": [{"protocol": "TCP", "port": 80}, {"protocol": "TCP", "port": 8000}]} in front["egress"]
    assert rendered("default")["NetworkPolicy/spillway"]["spec"]["ingress"][0]["from"] == [{"podSelector": {}}]


def test_prometheus_reads_every_pod_once() -> None:
    for case in ("full", "hpa"):
        wanted = rendered(case)["ServiceMonitor/spillway"]["spec"]["selector"]["matchLabels"].items()
        services = {name: row for name, row in rendered(case).items() if name.startswith("Service/")}
        assert [n for n, row in services.items() if wanted <= row["metadata"]["labels"].items()] == [
            "Service/spillway-pods"
        ]


def test_the_pod_takes_what_a_cluster_asks_for() -> None:
    pod = rendered("full")["StatefulSet/spillway"]["spec"]["template"]["spec"]
    assert (pod["runtimeClassName"], pod["priorityClassName"]) == ("nvidia", "high")
    assert pod["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"
    assert {"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"} in container("full")["env"]
    assert {"name": "certificates", "mountPath": "/etc/ca", "readOnly": True} in container("full")["volumeMounts"]
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"key": "nvidia.com/cuda.driver.major", "operator": "Gt", "values": ["579"]} in term["matchExpressions"]


def test_the_ledger_is_kept_as_long_as_anything_is() -> None:
    policy = rendered("full")["StatefulSet/spillway"]["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy["whenDeleted"] == "Retain", "data.keep is false there, models.keep is not"


def test_the_default_configuration_is_valid() -> None:
    text = rendered("default")["ConfigMap/spillway"]["data"]["spillway.yaml"]
    assert parse(text, {}).listen == "0.0.0.0:8080"


def test_values_keep_to_their_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert list(Draft7Validator(schema).iter_errors(values)) == []
    wrong: list[dict[str, Any]] = [
        {"autoscaling": {"kind": "magic"}},
        {"autoscaling": {"kind": "keda", "minReplicas": 0}},
        {"replicas": 3},
        {"networkPolicy": {"enable": False}},
        {"gpu": {"count": 1, "product": []}},
    ]
    for each in wrong:
        assert list(Draft7Validator(schema).iter_errors({**values, **each})) != [], each


def test_a_router_that_discovers_engines_may_read_their_endpoints_and_nothing_else() -> None:
    full = rendered("full")
    role, binding = full["Role/spillway-discovery"], full["RoleBinding/spillway-discovery"]
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]
    assert (role["metadata"]["namespace"], binding["metadata"]["namespace"]) == ("engines", "engines")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "spillway", "namespace": "llm"}]
    egress = full["NetworkPolicy/spillway"]["spec"]["egress"]
    peers = [peer for rule in egress for peer in rule.get("to", [])]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "engines"}}} in peers
    assert "Role/spillway-discovery" not in rendered("default")


@pytest.mark.parametrize("case", CASES)
def test_helm_itself_agrees(case: str) -> None:
    helm = tool("helm")
    more = ["--values", str(CASES[case])] if CASES[case] else []
    subprocess.run([helm, "lint", "--strict", str(CHART), *more], check=True, timeout=120)
    rendering = subprocess.run(
        [helm, "template", "spillway", str(CHART), "--namespace", "llm", *more],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    rows = [row for row in yaml.safe_load_all(rendering.stdout) if row]
    assert {f"{row['kind']}/{row['metadata']['name']}": row for row in rows} == rendered(case)


LISTEN = "listen: 0.0.0.0:8080\n"
SQLITE = LISTEN + 'ledger: {url: "sqlite:////data/spillway.db"}\n'
SHARED = LISTEN + 'ledger: {url: "postgresql://spillway@db/spillway"}\n'
CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"replicaCount": 3}, "put the ledger into PostgreSQL"),
    ({"autoscaling": {"kind": "keda"}}, "put the ledger into PostgreSQL"),
    ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    ({"config": "a: ["}, "config is not the YAML of a spillway.yaml"),
    ({"config": "- a"}, "config is not the YAML of a spillway.yaml"),
    ({"config": SQLITE + "backends: 5"}, "backends must be a list"),
    ({"config": SQLITE + "limits: 5"}, "limits must be a mapping"),
    ({"config": SQLITE.replace("0.0.0.0", "127.0.0.1")}, "can't be reached from outside the pod"),
    ({"config": SQLITE.replace("0.0.0.0", "localhost")}, "can't be reached from outside the pod"),
    ({"config": SQLITE.replace("0.0.0.0:8080", "'[::1]:8080'")}, "can't be reached from outside the pod"),
    ({"config": SQLITE.replace(":8080", ":9090")}, "is not the port of the Services"),
    ({"config": 'ledger: {url: "sqlite:////data/x.db"}'}, "can't be reached from outside the pod"),
    ({"config": LISTEN}, "is on no volume"),
    ({"config": LISTEN + 'ledger: {url: "sqlite:///spillway.db"}'}, "is on no volume"),
    ({"config": LISTEN + 'ledger: {url: "sqlite:////etc/spillway.db"}'}, "is on no volume"),
    ({"config": SQLITE + "limits: {stop_s: 600}"}, "set terminationGracePeriodSeconds: 660"),
    ({"config": SQLITE + "limits: {stop_unready_s: 0.5}"}, "set terminationGracePeriodSeconds: 191"),
    ({"terminationGracePeriodSeconds": 100}, "set terminationGracePeriodSeconds: 190"),
    ({"config": SQLITE + 'backends: [{name: a, api_key: "${KEY}"}]'}, "names the variable ${KEY}"),
    ({"config": SHARED, "autoscaling": {"kind": "hpa", "minReplicas": 4}}, "minReplicas is more than"),
    ({"args": ["spillway", "route"]}, "set gpu.count: 0"),
    ({"serviceMonitor": {"enabled": True}}, "/metrics needs a token"),
    ({"affinity": {"nodeAffinity": {"x": []}}, "gpu": {"minDriver": 580}}, "write their labels into it"),
    ({"data": {"size": "much"}}, "/data/size"),
    ({"sharedMemory": "8 GB"}, "/sharedMemory"),
    ({"ingress": {"enabled": True, "host": "https://llm.example.org"}}, "/ingress/host"),
    ({"ingress": {"enabled": True}}, "ingress.host is missing"),
    ({"disruptionBudget": {"maxUnavailable": "one"}}, "/disruptionBudget/maxUnavailable"),
    ({"serviceMonitor": {"interval": "15"}}, "/serviceMonitor/interval"),
]


def template(values: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """What helm makes of these values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    words = [tool("helm"), "template", "spillway", str(CHART), "--values", str(file)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("values", "said"), CONTRADICTIONS)
def test_values_that_contradict_each_other_are_not_rendered(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    done = template(values, tmp_path)
    assert done.returncode != 0
    assert said in done.stderr


def manifests_of(values: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    done = template(values, folder)
    assert done.returncode == 0, done.stderr
    return {f"{row['kind']}/{row['metadata']['name']}": row for row in yaml.safe_load_all(done.stdout) if row}


def test_what_a_config_names_is_looked_up_and_let_through(tmp_path: Path) -> None:
    config = LISTEN + (
        'ledger: {url: "postgres://spillway:${PASSWORD}@db.example.org/spillway"}  # ${COMMENT}\n'
        "backends: [{name: pool, provider: vllm, discover: dns, discover_from: 'engines.llm.svc:8123'}]\n"
    )
    manifests = manifests_of({"config": config, "extraEnv": [{"name": "PASSWORD", "value": "x"}]}, tmp_path)
    egress = manifests["NetworkPolicy/spillway"]["spec"]["egress"]
    assert {5432, 8123} <= {port["port"] for rule in egress for port in rule.get("ports", [])}


def test_a_pod_without_a_gpu_runs_the_router_alone(tmp_path: Path) -> None:
    pod = manifests_of({"gpu": {"count": 0}}, tmp_path)["StatefulSet/spillway"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["spillway", "route"]


def test_a_router_with_tls_is_probed_by_tls(tmp_path: Path) -> None:
    tls = SQLITE + "tls: {certificate: /etc/tls/tls.crt, key: /etc/tls/tls.key}\n"
    values: dict[str, Any] = {"config": tls, "serviceMonitor": {"enabled": True, "tokenSecret": {"name": "t"}}}
    manifests = manifests_of(values, tmp_path)
    inside = manifests["StatefulSet/spillway"]["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert inside[probe]["httpGet"]["scheme"] == "HTTPS"
    assert manifests["ServiceMonitor/spillway"]["spec"]["endpoints"][0]["scheme"] == "https"
    assert container("default")["readinessProbe"]["httpGet"]["scheme"] == "HTTP"


def test_affinity_is_kept_beside_what_the_gpu_needs(tmp_path: Path) -> None:
    spread = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    manifests = manifests_of({"affinity": spread, "gpu": {"products": ["NVIDIA-L4"]}}, tmp_path)
    affinity = manifests["StatefulSet/spillway"]["spec"]["template"]["spec"]["affinity"]
    assert set(affinity) == {"podAntiAffinity", "nodeAffinity"}
