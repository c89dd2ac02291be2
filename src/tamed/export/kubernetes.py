"""The manifests that run a deployment in Kubernetes, with matching probes, timeouts and permissions.

Pods are replaced without a failed request: a new one gets clients when the daemon is ready; an old one
continues to serve while the cluster still sends it clients (``stop-delay``, so no preStop hook), and then has
the deployment's time to drain. Pods comply with the level "restricted" of the Pod Security Standards.
"""

import math
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from tamed.cluster.engine import EngineUrl
from tamed.errors import ConfigurationError
from tamed.export.container import CREDENTIALS, RUN, USER, Container, Port, Resources
from tamed.export.facts import Facts
from tamed.export.files import MadeFile, Noted, Value, to_yaml

__all__ = ["STOP_DELAY", "Cluster", "manifests_of"]

STOP_DELAY = 10
"""Seconds until all nodes and load balancers know that a pod is terminating."""

_PROBE_SECONDS = 2
_MONITORING = {"kubernetes.io/metadata.name": "monitoring"}
_HOSTNAME = "kubernetes.io/hostname"
_READ_ONLY = 0o440
_ACCOUNT = "kubernetes.io/serviceaccount"
_API = "rbac.authorization.k8s.io"
_TOKEN_SECONDS = 3607  # Kubernetes' own value; the token is renewed earlier


class Cluster(NamedTuple):
    """The settings of the cluster for a deployment.

    ``connections`` is the number of open connections for each pod that an autoscaler aims at, between
    ``replicas`` and ``max_replicas`` pods; None for a fixed number of pods. ``service_monitor`` is for
    clusters with the Prometheus operator; others find the metrics by annotations. ``kustomize`` is for
    overlays.
    """

    image: str
    replicas: int = 2
    max_replicas: int = 10
    connections: int | None = None
    resources: Resources = Resources()
    service_monitor: bool = False
    kustomize: bool = False

    @property
    def most_pods(self) -> int:
        """The maximum number of pods, not counting the additional one of a rolling update."""
        return self.replicas if self.connections is None else max(self.replicas, self.max_replicas)

    def warnings(self, facts: Facts) -> list[str]:
        """Return warnings about services for one machine, which several pods multiply."""
        why = f"one runs in each pod, up to {self.most_pods} at a time, and one more during an update"
        remedy = 'only = "cluster" runs one in all of them'
        places = (facts.place(f"services.{name.partition('/')[0]}", "only") for name in facts.of_host)
        return [f"{place}: {why}; {remedy}" for place in places]


def manifests_of(container: Container, cluster: Cluster, made_by: str) -> list[MadeFile]:
    """Return the manifests, each in its own file, for ``kubectl apply -f FOLDER`` or ``-k FOLDER``.

    Raises UsageError for invalid quantities.
    """
    facts = container.facts
    documents: dict[str, dict[str, Value]] = {}
    if not cluster.kustomize:
        documents["configmap"] = _object(container, "v1", "ConfigMap", data={facts.file.name: facts.text})
    documents["deployment"] = _deployment(container, cluster)
    if namespace := _leases_namespace(facts):
        for version, kind, rest in _role_documents(facts.name, namespace):
            documents[kind.lower()] = _object(container, version, kind, namespace, **rest)
    if container.ports or cluster.service_monitor:
        documents["service"] = _service(container, cluster)
    documents["poddisruptionbudget"] = _budget(container)
    documents["networkpolicy"] = _network_policy(container)
    if cluster.connections is not None:
        documents["horizontalpodautoscaler"] = _autoscaler(container, cluster, cluster.connections)
    if cluster.service_monitor:
        documents["servicemonitor"] = _service_monitor(container)
    files = [MadeFile(f"{name}.yaml", f"---\n{to_yaml(each)}", made_by) for name, each in documents.items()]
    if cluster.kustomize:
        resources = [file.name for file in files]
        content = to_yaml(_kustomization(container, resources))
        files.append(MadeFile("kustomization.yaml", f"---\n{content}", made_by))
        files.append(MadeFile(facts.file.name, facts.text, made_by))
    return files


def _object(
    container: Container, version: str, kind: str, namespace: str = "", /, **rest: Value
) -> dict[str, Value]:
    labels = {**_labels(container), "app.kubernetes.io/managed-by": "tamed"}
    metadata: dict[str, Value] = {"name": container.facts.name, "labels": labels}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _labels(container: Container) -> dict[str, Value]:
    return {"app.kubernetes.io/name": container.facts.name}


def _selector(container: Container) -> dict[str, Value]:
    return {"matchLabels": _labels(container)}


def _deployment(container: Container, cluster: Cluster) -> dict[str, Value]:
    start = container.facts.start_seconds
    spec: dict[str, Value] = {}
    if cluster.connections is None:
        spec["replicas"] = cluster.replicas
    spec |= {
        "selector": _selector(container),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": max(600, 2 * start),
        "template": {
            "metadata": {"labels": _labels(container), **_annotations(container, cluster)},
            "spec": _pod(container, cluster),
        },
    }
    return _object(container, "apps/v1", "Deployment", spec=spec)


def _annotations(container: Container, cluster: Cluster) -> dict[str, Value]:
    annotations: dict[str, Value] = {}
    if not cluster.kustomize:
        digest = sha256(container.facts.text.encode()).hexdigest()
        annotations["tamed/deployment"] = Noted(
            digest, "Digest of the deployment file: if it changes, the pods are replaced."
        )
    if not cluster.service_monitor:
        annotations |= {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(container.ops),
            "prometheus.io/path": "/metrics",
        }
    return {"annotations": annotations} if annotations else {}


def _pod(container: Container, cluster: Cluster) -> dict[str, Value]:
    account: dict[str, Value] = {}
    if _leases_namespace(container.facts):
        account["serviceAccountName"] = Noted(
            container.facts.name, "May write Leases, for services that run once."
        )
    return {
        **account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": Noted(
            False, "Otherwise a Service named tamed-NAME would set variables that Tamed reads as options."
        ),
        "securityContext": _security_of_pod(container),
        "terminationGracePeriodSeconds": Noted(
            container.stop_seconds, "Longest time of the daemon to serve on, to drain and to stop."
        ),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": _HOSTNAME,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": _selector(container),
            }
        ],
        "containers": [_container(container, cluster)],
        "volumes": list(_volumes(container)),
    }


def _security_of_pod(container: Container) -> dict[str, Value]:
    context: dict[str, Value] = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if container.lowest_port is not None:
        name = "net.ipv4.ip_unprivileged_port_start"
        context["sysctls"] = Noted(
            [{"name": name, "value": str(container.lowest_port)}],
            "Instead of a capability, to bind the port.",
        )
    return context


def _container(container: Container, cluster: Cluster) -> dict[str, Value]:
    facts = container.facts
    made: dict[str, Value] = {
        "name": facts.name,
        "image": cluster.image,
        "command": list(container.command),
        "workingDir": str(facts.file.parent),
        "env": list(_environment(container)),
        "ports": [
            *(
                {"name": port.name, "containerPort": port.number, "protocol": port.protocol}
                for port in container.ports
            ),
            {"name": "ops", "containerPort": container.ops, "protocol": "TCP"},
        ],
        "startupProbe": _probe("/startupz", _PROBE_SECONDS, math.ceil(facts.start_seconds / _PROBE_SECONDS)),
        "livenessProbe": _probe("/livez", 10, 3),
        "readinessProbe": _probe("/readyz", 5, 2),
    }
    if limits := _limits(cluster.resources):
        made["resources"] = {"requests": limits, "limits": limits}
    made["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    made["volumeMounts"] = list(_mounts(container))
    return made


def _environment(container: Container) -> Iterator[Value]:
    for name, value in container.environment.items():
        yield {"name": name, "value": value}
    for name in container.facts.variables:
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": container.facts.name, "key": name}}}


def _probe(path: str, period: int, failures: int) -> dict[str, Value]:
    return {
        "httpGet": {"path": path, "port": "ops"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _limits(resources: Resources) -> dict[str, Value]:
    checked = {"cpu": (resources.cpu, resources.cpus), "memory": (resources.memory, resources.bytes)}
    return {name: text for name, (text, _) in checked.items() if text is not None}


def _mounts(container: Container) -> Iterator[Value]:
    facts = container.facts
    yield {"name": "deployment", "mountPath": str(facts.file), "subPath": facts.file.name, "readOnly": True}
    if facts.credentials or _leases_namespace(facts):
        yield {"name": "credentials", "mountPath": CREDENTIALS, "readOnly": True}
    for name, folder in _writable(container):
        yield {"name": name, "mountPath": folder}


def _volumes(container: Container) -> Iterator[Value]:
    facts = container.facts
    yield {"name": "deployment", "configMap": {"name": facts.name}}
    items: list[Value] = [{"key": name, "path": name} for name in facts.credentials]
    note = f"The secret {facts.name} must have the keys: {', '.join(facts.credentials)}."
    if _leases_namespace(facts):
        sources = _account_sources()
        if items:
            sources.append(Noted({"secret": {"name": facts.name, "items": items}}, note))
        yield {"name": "credentials", "projected": {"defaultMode": _READ_ONLY, "sources": sources}}
    elif items:
        secret: dict[str, Value] = {"secretName": facts.name, "defaultMode": _READ_ONLY, "items": items}
        yield Noted({"name": "credentials", "secret": secret}, note)
    for name, _ in _writable(container):
        yield {"name": name, "emptyDir": {"medium": "Memory"} if name == "run" else {}}


def _writable(container: Container) -> Iterator[tuple[str, str]]:
    """Yield a volume's name and the folder, for each writable folder."""
    yield "run", RUN
    yield "tmp", "/tmp"  # noqa: S108 - a volume of its own
    for number, folder in enumerate(container.folders, start=1):
        if folder != "/tmp":  # noqa: S108
            yield f"folder-{number}", folder


def _service(container: Container, cluster: Cluster) -> dict[str, Value]:
    ports = list(container.ports)
    if cluster.service_monitor:
        ports.append(Port(container.ops, "ops", is_datagram=False))
    entries: list[Value] = [
        {"name": port.name, "port": port.number, "targetPort": port.name, "protocol": port.protocol}
        for port in ports
    ]
    return _object(container, "v1", "Service", spec={"selector": _labels(container), "ports": entries})


def _budget(container: Container) -> dict[str, Value]:
    spec: dict[str, Value] = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": _selector(container),
    }
    return _object(container, "policy/v1", "PodDisruptionBudget", spec=spec)


def _network_policy(container: Container) -> dict[str, Value]:
    open_ports: list[Value] = [{"port": port.name, "protocol": port.protocol} for port in container.ports]
    ingress: list[Value] = [{"ports": open_ports}] if open_ports else []
    ingress.append(
        Noted(
            {
                "from": [{"namespaceSelector": {"matchLabels": _MONITORING}}],
                "ports": [{"port": "ops", "protocol": "TCP"}],
            },
            "Metrics, for Prometheus. Probes come from the node, to which no policy applies.",
        )
    )
    spec: dict[str, Value] = {
        "podSelector": _selector(container),
        "policyTypes": Noted(["Ingress"], "The destinations of the services are not known here."),
        "ingress": ingress,
    }
    return _object(container, "networking.k8s.io/v1", "NetworkPolicy", spec=spec)


def _autoscaler(container: Container, cluster: Cluster, connections: int) -> dict[str, Value]:
    spec: dict[str, Value] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": container.facts.name},
        "minReplicas": cluster.replicas,
        "maxReplicas": cluster.most_pods,
        "metrics": Noted(
            [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": "tamed_connections_open"},
                        "target": {"type": "AverageValue", "averageValue": str(connections)},
                    },
                }
            ],
            "An adapter, such as prometheus-adapter, must serve this metric as custom.metrics.k8s.io.",
        ),
    }
    return _object(container, "autoscaling/v2", "HorizontalPodAutoscaler", spec=spec)


def _service_monitor(container: Container) -> dict[str, Value]:
    endpoints: list[Value] = [{"port": "ops", "path": "/metrics"}]
    spec: dict[str, Value] = {"selector": _selector(container), "endpoints": endpoints}
    return _object(container, "monitoring.coreos.com/v1", "ServiceMonitor", spec=spec)


def _kustomization(container: Container, resources: list[str]) -> dict[str, Value]:
    generator: dict[str, Value] = {"name": container.facts.name, "files": [container.facts.file.name]}
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
        "configMapGenerator": Noted([generator], "If the deployment file changes, the pods are replaced."),
    }


def _leases_namespace(facts: Facts) -> str:
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


def _role_documents(name: str, namespace: str) -> list[tuple[str, str, dict[str, Value]]]:
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


def _account_sources() -> list[Value]:
    """Return the sources of a projected volume with the files that the engine reads.

    The token is not mounted automatically: that would be into the folder of the deployment's own secrets,
    which is read-only; so both are in one volume, with the parts that Kubernetes itself mounts, see
    https://kubernetes.io/docs/concepts/storage/projected-volumes/
    """
    token: dict[str, Value] = {"path": f"{_ACCOUNT}/token", "expirationSeconds": _TOKEN_SECONDS}
    authority: list[Value] = [{"key": "ca.crt", "path": f"{_ACCOUNT}/ca.crt"}]
    return [
        {"serviceAccountToken": token},
        {"configMap": {"name": "kube-root-ca.crt", "items": authority}},
    ]
