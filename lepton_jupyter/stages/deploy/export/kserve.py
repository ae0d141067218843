"""``--format kserve``: an InferenceService (v1beta1) with an image as its predictor, and a template of its secret."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.stages.deploy.export.image import PORT
from lepton_jupyter.stages.deploy.export.packages import STATE, USER_ID

SERVICE = "inference_service.yaml"
SECRET = "secret.template.yaml"  # noqa: S105  the name of a file
MAX_NAME = 50  # Knative adds to it, and a host name's part has 63

_SERVICE = """\
# {version} as a predictor of its own, by the Open Inference Protocol (v2) as model {model} or {name}.
# First the token: see {secret}. Then: kubectl apply -f {service}
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
  annotations:
    lepton-jupyter/version: {version_text}
    lepton-jupyter/manifest: {manifest_text}
spec:
  predictor:
    automountServiceAccountToken: false
    containers:
      - name: kserve-container
        image: {image_text}
        ports:
          - containerPort: {port}
            protocol: TCP
        env:
          - name: PROTOCOL
            value: v2
          - name: LEPTON_NAME
            value: {name}
          - name: LEPTON_TOKEN
            valueFrom:
              secretKeyRef:
                name: {name}-token
                key: token
        readinessProbe:
          httpGet:
            path: /readyz
            port: {port}
          periodSeconds: 2
        livenessProbe:
          httpGet:
            path: /healthz
            port: {port}
          periodSeconds: 10
        resources:
          requests:
            cpu: 250m
            memory: 256Mi
          limits:
            memory: 1Gi
        securityContext:
          runAsNonRoot: true
          runAsUser: {user}
          runAsGroup: {user}
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: [ALL]
          seccompProfile:
            type: RuntimeDefault
        volumeMounts:
          - name: tmp
            mountPath: /tmp
          - name: state
            mountPath: /{state}
    securityContext:
      fsGroup: {user}
    volumes:
      - name: tmp
        emptyDir: {{}}
      - name: state
        emptyDir:
          sizeLimit: 2Gi
"""

_BESIDE = """\
# A template: put a token in, or make the secret without a file:
#   kubectl create secret generic {name}-token --from-literal=token="$(openssl rand -hex 32)"
# Without a token the container refuses to start.
apiVersion: v1
kind: Secret
metadata:
  name: {name}-token
type: Opaque
stringData:
  token: ""
"""


def write_manifests(version: VersionView, manifest_hash: str, image: str, folder: Path) -> None:
    """Write the InferenceService and the secret's template into an empty folder.

    Parameters
    ----------
    version : VersionView
    manifest_hash : str
        Of its bundle.
    image : str
        Where the cluster finds the image.
    folder : Path

    Raises
    ------
    OSError
        As the file system says.
    """
    words = {
        "name": service_name(version.model),
        "model": version.model,
        "version": version.ref,
        "version_text": json.dumps(version.ref),
        "manifest_text": json.dumps(f"sha256:{manifest_hash}"),
        "image_text": json.dumps(image),
        "port": PORT,
        "user": USER_ID,
        "state": STATE,
        "secret": SECRET,
        "service": SERVICE,
    }
    (folder / SERVICE).write_text(_SERVICE.format(**words))
    (folder / SECRET).write_text(_BESIDE.format(**words))


def service_name(model: str) -> str:
    """Return a model's name as a cluster takes it: small letters, digits and hyphens.

    Examples
    --------
    >>> service_name("Tumor_Net.v2")
    'tumor-net-v2'
    """
    return re.sub(r"[^a-z0-9]+", "-", model.lower())[:MAX_NAME].strip("-")


def check_image(image: str | None) -> str:
    """Return the name of the image.

    Raises
    ------
    LeptonError
        If none is given, or it is no name of one.
    """
    if not image:
        raise LeptonError(
            "--format kserve needs --image: the name under which the cluster finds the image.",
            "Export it with --format oci, push it, and give the name: --image REGISTRY/NAME:TAG",
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", image):
        raise LeptonError(f"'{image}' cannot be the name of an image.", "Write it as REGISTRY/NAME:TAG.")
    return image
