"""The Kubernetes manifests: valid for the versions in use, and what they promise fits together."""

import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from everpost.api.routes import ADMIN, NATIVE
from everpost.assembly import ROLES
from everpost.config import load
from everpost.config.describe import describe
from tests.deploy.test_compose import BESIDE
from tests.support.deployed import DEPLOY

FOLDER = DEPLOY / "kubernetes"
VERSIONS = ("1.30", "1.34", "1.37")
FILES = sorted(file.name for file in FOLDER.glob("*.yaml") if file.name != "kustomization.yaml")
LISTED: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def _read(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


OBJECTS = [each for name in FILES for each in _read(name)]
WORKLOADS = {
    each["metadata"]["name"]: each
    for each in OBJECTS
    if each["kind"] in {"StatefulSet", "Deployment"}
}
CONFIG = next(each for each in OBJECTS if each["kind"] == "ConfigMap")
SECRET = next(each for each in OBJECTS if each["kind"] == "Secret")


def _pod(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return pod


def _container(name: str) -> dict[str, Any]:
    (container,) = _pod(name)["containers"]
    found: dict[str, Any] = container
    return found


def _kind(kind: str) -> list[dict[str, Any]]:
    return [each for each in OBJECTS if each["kind"] == kind]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_manifest_that_the_api_server_would_refuse(name: str, version: str) -> None:
    for each in _read(name):
        kubernetes_validate.validate(each, version, strict=True)


def test_file_that_nobody_applies() -> None:
    """All but the example of a secret."""
    assert sorted([*LISTED["resources"], "secret.example.yaml"]) == FILES


def test_one_workload_a_role() -> None:
    """A dispatcher's dot log is read by the upkeep of its own node."""
    assert sorted(_container(name)["args"][1] for name in WORKLOADS) == sorted(ROLES)
    for name in WORKLOADS:
        role = name.removeprefix("everpost-")
        beside = ["upkeep"] if role == "dispatch" else []
        assert _container(name)["args"] == ["run", role, *beside]


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_pod_is_given_what_is_no_setting(name: str) -> None:
    container = _container(name)
    assert container["envFrom"] == [{"configMapRef": {"name": CONFIG["metadata"]["name"]}}]
    given = dict(CONFIG["data"])
    for each in container["env"]:
        given[each["name"]] = each.get("value", "pod-0").replace(
            "$(EVERPOST_CLUSTER_NAME)", "pod-0"
        )
        if each["name"] in BESIDE:
            wanted = each["valueFrom"]["secretKeyRef"]
            assert wanted["name"] == SECRET["metadata"]["name"]
            assert wanted["key"] in SECRET["stringData"]
    assert set(given) - BESIDE <= {item.variable for item in describe()}
    settings = load(Path(os.devnull), {k: v for k, v in given.items() if k not in BESIDE}, {})
    assert settings.cluster.name == "pod-0"
    grace = _pod(name)["terminationGracePeriodSeconds"]
    assert grace >= settings.http.linger_s + settings.node.drain_s + 15
    copied = _pod(name)["initContainers"][0]["command"][2]
    for file in (settings.postgres.password_file, settings.cluster.secret_file):
        assert Path(file).parent == Path("/secrets")
        assert f"/from/{Path(file).name}" in copied


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_pod_could_do_more_than_it_needs(name: str) -> None:
    pod = _pod(name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_volume_that_nobody_has(name: str) -> None:
    pod = _pod(name)
    there = {volume["name"] for volume in pod["volumes"]}
    there |= {
        c["metadata"]["name"] for c in WORKLOADS[name]["spec"].get("volumeClaimTemplates", [])
    }
    used = {
        mount["name"]
        for container in (*pod["containers"], *pod["initContainers"])
        for mount in container["volumeMounts"]
    }
    assert used == there
    (secret,) = (volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    assert secret["secretName"] == SECRET["metadata"]["name"]
    assert {item["key"] for item in secret["items"]} <= set(SECRET["stringData"])


def test_what_was_accepted_lies_on_a_volume_that_goes_with_the_pod() -> None:
    for name in ("everpost-api", "everpost-dispatch"):
        assert WORKLOADS[name]["kind"] == "StatefulSet"
        (claim,) = WORKLOADS[name]["spec"]["volumeClaimTemplates"]
        assert claim["metadata"]["name"] == "data"
        kept = WORKLOADS[name]["spec"]["persistentVolumeClaimRetentionPolicy"]
        assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_selector_that_fits_no_pod() -> None:
    labels = [WORKLOADS[name]["spec"]["template"]["metadata"]["labels"] for name in WORKLOADS]
    chosen = [each["spec"]["selector"] for each in _kind("Service")]
    chosen += [each["spec"]["selector"]["matchLabels"] for each in _kind("PodDisruptionBudget")]
    chosen += [each["spec"]["podSelector"]["matchLabels"] for each in _kind("NetworkPolicy")]
    chosen += [each["spec"]["selector"]["matchLabels"] for each in WORKLOADS.values()]
    assert len(chosen) == 3 + 3 + 1 + 3
    for selector in chosen:
        assert any(selector.items() <= each.items() for each in labels), selector


def test_scaling_and_budgets_name_a_workload() -> None:
    for each in _kind("HorizontalPodAutoscaler"):
        wanted = each["spec"]["scaleTargetRef"]
        workload = WORKLOADS[wanted["name"]]
        assert (wanted["kind"], wanted["apiVersion"]) == (workload["kind"], workload["apiVersion"])
        # Else each apply would undo what the scaler did.
        assert "replicas" not in workload["spec"]
        assert each["spec"]["minReplicas"] >= 2
    budgets = {each["metadata"]["name"]: each["spec"] for each in _kind("PodDisruptionBudget")}
    assert set(budgets) == set(WORKLOADS)
    assert all(spec["maxUnavailable"] == 1 for spec in budgets.values())


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_nobody_looks_whether_a_pod_hangs(name: str) -> None:
    container = _container(name)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert CONFIG["data"]["EVERPOST_HTTP_ADMIN_LISTEN"].endswith(f":{ports['admin']}")
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == "/health/live"
        assert container[probe]["httpGet"]["port"] in ports
    paths = {route.path for route in (*NATIVE, *ADMIN)}
    assert {"/health/live", "/health/ready"} <= paths
    assert "/health/live" in {route.path for route in ADMIN}


def test_probes_ask_where_the_api_listens() -> None:
    container = _container("everpost-api")
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert CONFIG["data"]["EVERPOST_HTTP_LISTEN"].endswith(f":{ports['http']}")
    assert CONFIG["data"]["EVERPOST_CLUSTER_LISTEN"].endswith(f":{ports['peers']}")
    for name in (name for name in container if "Probe" in name):
        assert container[name]["httpGet"]["port"] == "http"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    ready = container["readinessProbe"]
    seen = ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]
    assert seen < float(CONFIG["data"]["EVERPOST_HTTP_LINGER_S"])
    targets = {p["targetPort"] for s in _kind("Service") for p in s["spec"].get("ports", [])}
    assert targets == set(ports) - {"admin"}
