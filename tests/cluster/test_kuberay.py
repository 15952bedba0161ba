"""The files for KubeRay match its resources and Kubernetes' schemas, and use one image."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from bbam_ray import __version__

FOLDER = Path(__file__).parents[2] / "launch" / "cluster"
KUBERAY = ["kuberay-cluster.yaml", "kuberay-job.yaml"]
KUBERNETES = "1.34"


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def templates(name: str) -> dict[str, Any]:
    """Pods of the head and of the workers."""
    spec = documents(name)[0]["spec"]
    spec = spec.get("rayClusterSpec", spec)
    (workers,) = spec["workerGroupSpecs"]
    return {"head": spec["headGroupSpec"]["template"], "worker": workers["template"]}


# The parts of KubeRay's schema that are used here; any other key is an error.
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_CLUSTER = {
    "type": "object",
    "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
    "additionalProperties": False,
    "properties": {
        "rayVersion": {"const": "2.60.0"},
        "authOptions": {"const": {"mode": "token"}},
        "enableInTreeAutoscaling": {"const": True},
        "autoscalerOptions": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "idleTimeoutSeconds": {"type": "integer", "minimum": 60},
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
            },
        },
        "headGroupSpec": {
            "type": "object",
            "required": ["serviceType", "rayStartParams", "template"],
            "additionalProperties": False,
            "properties": {
                "serviceType": {"const": "ClusterIP"},
                "rayStartParams": _TEXTS,
                "template": {"type": "object"},
            },
        },
        "workerGroupSpecs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["groupName", "rayStartParams", "template"],
                "additionalProperties": False,
                "properties": {
                    "groupName": {"type": "string"},
                    "replicas": {"const": 0},
                    "minReplicas": {"const": 0},
                    "maxReplicas": {"type": "integer", "minimum": 1},
                    "rayStartParams": _TEXTS,
                    "template": {"type": "object"},
                },
            },
        },
    },
}


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_files_match_the_schema_of_the_operator(name: str) -> None:
    document, *policies = yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
    assert document["apiVersion"] == "ray.io/v1"
    job = document["kind"] == "RayJob"
    spec = document["spec"].pop("rayClusterSpec") if job else document["spec"]
    jsonschema.validate(spec, _CLUSTER)
    if job:
        known = {
            "entrypoint",
            "shutdownAfterJobFinishes",
            "ttlSecondsAfterFinished",
            "backoffLimit",
        }
        assert (
            set(document["spec"]) == known and document["spec"]["shutdownAfterJobFinishes"] is True
        )
        # Its dashboard listens within the cluster; only its own pods and the operator have access.
        (policy,) = policies
        assert policy["kind"] == "NetworkPolicy" and policy["spec"]["policyTypes"] == ["Ingress"]
        (rule,) = policy["spec"]["ingress"]
        assert all(source.get("podSelector", {}).get("matchLabels") for source in rule["from"])
    else:
        assert spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    start = spec["headGroupSpec"]["rayStartParams"]
    assert (start["num-cpus"], start["num-gpus"]) == ("0", "0")
    assert json.loads(json.loads(start["resources"])) == {"trial_slot": 1000}


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_and_policies_match_the_schemas_of_kubernetes(name: str) -> None:
    """Strictly: an unknown key is an error."""
    for role, template in templates(name).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": role}, **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        pod["spec"]["containers"][0]["imagePolicy"] = "Always"
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    for policy in documents(name)[1:]:
        kubernetes_validate.validate(policy, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", KUBERAY)
def test_the_image_is_set_in_one_line_and_its_user_may_write(name: str) -> None:
    pods = templates(name).values()
    images = {container["image"] for pod in pods for container in pod["spec"]["containers"]}
    assert images == {f"bbam-ray:{__version__}"}
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert len(re.findall(r"image: (?!\*image$)", text, re.MULTILINE)) == 1
    for pod in pods:
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True and security["fsGroup"] == 1000


def test_the_probes_of_the_job_ask_the_agent() -> None:
    """Its dashboard does not listen on loopback, where KubeRay 1.5 would ask it."""
    (head,) = templates("kuberay-job.yaml")["head"]["spec"]["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert head[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}
