"""Kubernetes objects for a deployment whose roles are Leases: an account, its rights, and its token.

The token is not mounted automatically: that would be into the folder of the deployment's own secrets, which
is read-only; so both are in one volume, with the parts that Kubernetes itself mounts, see
https://kubernetes.io/docs/concepts/storage/projected-volumes/
"""

from tamed.cluster.engine import EngineUrl
from tamed.errors import ConfigurationError
from tamed.export.facts import Facts
from tamed.export.yaml import Value

__all__ = ["account_sources", "leases_namespace", "role_documents"]

_FOLDER = "kubernetes.io/serviceaccount"
_API = "rbac.authorization.k8s.io"
_TOKEN_SECONDS = 3607  # Kubernetes' own value; the token is renewed earlier


def leases_namespace(facts: Facts) -> str:
    """Return the namespace of a deployment's Lease objects; empty if no Lease objects grant its roles.

    Raises ConfigurationError without a namespace: an account has its rights in one.
    """
    text = facts.settings.daemon.cluster
    if not text.startswith("kubernetes:") or (url := EngineUrl.parse(text)).hosts:
        return ""
    if not url.path:
        remedy = "add the namespace, in which the pods' account gets its rights: kubernetes:NAMESPACE"
        raise ConfigurationError(facts.place("daemon", "cluster"), "it has no namespace", remedy)
    return url.path


def role_documents(name: str, namespace: str) -> list[tuple[str, str, dict[str, Value]]]:
    """Return version, kind and body of an account, of a role that may write Leases, and of their binding."""
    rule: dict[str, Value] = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "create", "update"],
    }
    subject: dict[str, Value] = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    reference: dict[str, Value] = {"apiGroup": _API, "kind": "Role", "name": name}
    return [
        ("v1", "ServiceAccount", {"automountServiceAccountToken": False}),
        (f"{_API}/v1", "Role", {"rules": [rule]}),
        (f"{_API}/v1", "RoleBinding", {"roleRef": reference, "subjects": [subject]}),
    ]


def account_sources() -> list[Value]:
    """Return the sources of a projected volume with the files that the engine reads."""
    token: dict[str, Value] = {"path": f"{_FOLDER}/token", "expirationSeconds": _TOKEN_SECONDS}
    authority: list[Value] = [{"key": "ca.crt", "path": f"{_FOLDER}/ca.crt"}]
    return [
        {"serviceAccountToken": token},
        {"configMap": {"name": "kube-root-ca.crt", "items": authority}},
    ]
