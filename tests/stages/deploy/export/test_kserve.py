"""What a cluster is given: a predictor that runs the image, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.stages.deploy.export.kserve import SECRET, SERVICE, service_name
from tests.stages.deploy.export.images import export_to


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    export_to(tmp_path / "cluster", bundle, format="kserve", image="registry.local/team/net:3")
    return tmp_path / "cluster"


def test_the_service_is_a_custom_predictor_of_protocol_v2(folder: Path, bundle: Bundle) -> None:
    service = yaml.safe_load((folder / SERVICE).read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert service["metadata"]["name"] == "net"
    assert service["metadata"]["annotations"]["lepton-jupyter/manifest"] == f"sha256:{bundle.manifest_hash}"
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["name"] == "kserve-container"
    assert container["image"] == "registry.local/team/net:3"
    assert container["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]
    told = {one["name"]: one.get("value") or one["valueFrom"] for one in container["env"]}
    assert told["PROTOCOL"] == "v2" and told["LEPTON_NAME"] == "net"
    assert told["LEPTON_TOKEN"] == {"secretKeyRef": {"name": "net-token", "key": "token"}}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8080}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 8080}
    assert container["securityContext"]["runAsNonRoot"] and container["securityContext"]["runAsUser"] == 65532
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounted = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert mounted == {"tmp": "/tmp", "state": "/var/lib/lepton"}
    assert {volume["name"] for volume in service["spec"]["predictor"]["volumes"]} == set(mounted)


def test_the_secret_is_a_template_without_one(folder: Path) -> None:
    secret = yaml.safe_load((folder / SECRET).read_text())
    assert secret["kind"] == "Secret" and secret["metadata"]["name"] == "net-token"
    assert secret["stringData"] == {"token": ""}


@pytest.mark.parametrize(
    ("model", "name"), [("Net", "net"), ("Tumor_Net.v2", "tumor-net-v2"), ("A" * 64, "a" * 50), ("B-", "b")]
)
def test_a_name_is_what_a_cluster_takes(model: str, name: str) -> None:
    assert service_name(model) == name
