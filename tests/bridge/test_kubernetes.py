"""The manifests of bridge/kubernetes: rendered by kubectl, and held to the schemas of Kubernetes.

And to what the bridge needs: who shares what, in which order, for how long, and with how much memory.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cachee_bridge.__main__ import _parser
from cachee_bridge.daemon.daemon import LEAVE_S
from cachee_bridge.daemon.in_force import in_force
from cachee_shm.config import Config, loads
from tests import machine

SHIPPED = Path(__file__).resolve().parents[2] / "bridge" / "kubernetes"
FLAVOURS = ("sidecar", "daemonset")
BRIDGE_BYTES = 60 << 20
"""What a bridge with eight peers may take for itself (C9 of the targets); the manifests give it more."""
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

pytestmark = pytest.mark.needs("kubectl")


def rendered(flavour: str) -> list[dict[str, Any]]:
    import yaml

    done = subprocess.run(["kubectl", "kustomize", str(SHIPPED / flavour)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def kind(flavour: str, name: str) -> dict[str, Any]:
    (found,) = [resource for resource in rendered(flavour) if resource["kind"] == name]
    return found


def pods(flavour: str) -> list[dict[str, Any]]:
    """What each pod is made from."""
    return [
        resource["spec"]["template"]
        for resource in rendered(flavour)
        if "template" in resource.get("spec", ())
    ]


def config(flavour: str, secret: Path) -> Config:
    """As the bridge reads it, the secret elsewhere."""
    text: str = kind(flavour, "ConfigMap")["data"]["cachee.toml"]
    moved, times = re.subn(r'secret_file = ".*"', f'secret_file = "{secret}"', text)
    assert times == 1
    return loads(moved.replace("NODE", "node-1").encode(), "cachee.toml")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("as `head -c 32 /dev/urandom | base64` has it\n")
    path.chmod(0o440)
    return path


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def bridge_of(flavour: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its container, and the pod that this is in."""
    found = [(one, pod) for pod in pods(flavour) for one in containers(pod) if one["name"] == "bridge"]
    assert len(found) == 1
    return found[0]


def size(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def seen(container: dict[str, Any]) -> dict[str, str]:
    """Which volume is at which path in it."""
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_resource_fits_the_schemas_of_kubernetes(flavour: str) -> None:
    machine.require("schemas of Kubernetes")
    import kubernetes_validate

    for resource in rendered(flavour):
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    wrong = kind(flavour, "Service")
    wrong["spec"]["publishNotReadyAddress"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_bridge_finds_no_fault_in_the_configuration(flavour: str, secret: Path) -> None:
    used = in_force(config(flavour, secret))
    assert used.bridge.discover == f"dns:{kind(flavour, 'Service')['metadata']['name']}:7946"
    assert used.settings.address == ":7946"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_service_names_each_bridge_whether_it_is_ready_or_not(flavour: str) -> None:
    service, (_, pod) = kind(flavour, "Service")["spec"], bridge_of(flavour)
    assert service["clusterIP"] == "None" and service["publishNotReadyAddresses"] is True
    assert service["selector"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_ports_are_those_of_the_configuration(flavour: str, secret: Path) -> None:
    bridge, (container, pod) = in_force(config(flavour, secret)).bridge, bridge_of(flavour)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert bridge.metrics is not None
    assert (ports["cachee"], ports["metrics"]) == (
        int(bridge.listen.rpartition(":")[2]),
        int(bridge.metrics.rpartition(":")[2]),
    )
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    probes = [container[probe] for probe in container if probe.endswith("Probe")]
    assert {probe["httpGet"]["port"] for probe in probes} == {"metrics"}
    assert {probe["httpGet"]["path"] for probe in probes} <= {"/healthz", "/readyz"}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_bridge_and_application_share_memory_and_configuration_and_are_one_user(flavour: str) -> None:
    bridge, _ = bridge_of(flavour)
    (shop,) = [one for pod in pods(flavour) for one in containers(pod) if one["name"] == "shop"]
    volumes = [{volume["name"]: volume for volume in pod["spec"]["volumes"]} for pod in pods(flavour)]
    for path in {"/dev/shm", *seen(shop)}:
        assert seen(bridge)[path] == (name := seen(shop)[path])
        if len(volumes) > 1:  # pods of their own: what is the node's
            assert len({found[name]["hostPath"]["path"] for found in volumes}) == 1
    assert "secret" in seen(bridge).values() and "secret" not in seen(shop).values()
    users = {pod["spec"]["securityContext"]["runAsUser"] for pod in pods(flavour)}
    assert len(users) == 1 and 0 not in users
    assert f"--uid {users.pop()}" in (SHIPPED / "Containerfile").read_text()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_who_makes_the_segments_is_given_their_memory(flavour: str, secret: Path) -> None:
    """A page of shared memory is charged to whoever touches it first: the bridge makes the segments."""
    read = config(flavour, secret)
    segments = sum(read.namespace(name).memory for name in read.namespaces)
    container, pod = bridge_of(flavour)
    assert size(container["resources"]["limits"]["memory"]) >= segments + BRIDGE_BYTES
    (shared,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "shared-memory"]
    if "emptyDir" in shared:
        assert shared["emptyDir"]["medium"] == "Memory"
        assert size(shared["emptyDir"]["sizeLimit"]) > segments


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_there_is_time_to_drain_and_to_say_farewell(flavour: str, secret: Path) -> None:
    _, pod = bridge_of(flavour)
    drain = in_force(config(flavour, secret)).bridge.drain
    assert pod["spec"]["terminationGracePeriodSeconds"] > drain + LEAVE_S + 5


def test_the_sidecar_starts_before_the_application_and_is_stopped_after_it() -> None:
    (pod,) = pods("sidecar")
    (bridge,) = pod["spec"]["initContainers"]
    assert bridge["restartPolicy"] == "Always" and "startupProbe" in bridge


def test_the_daemonset_shares_the_doorbell_and_names_each_node_apart() -> None:
    assert all(pod["spec"]["hostIPC"] for pod in pods("daemonset"))
    _, pod = bridge_of("daemonset")
    (rendering,) = pod["spec"]["initContainers"]
    assert rendering["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"


def test_the_configuration_of_a_node_is_made_by_what_its_container_runs(tmp_path: Path) -> None:
    _, pod = bridge_of("daemonset")
    (rendering,) = pod["spec"]["initContainers"]
    for folder in ("template", "run"):
        (tmp_path / folder).mkdir()
    (tmp_path / "template" / "cachee.toml").write_text(kind("daemonset", "ConfigMap")["data"]["cachee.toml"])
    script = (
        rendering["args"][0]
        .replace("/template", f"{tmp_path}/template")
        .replace("/run/cachee", f"{tmp_path}/run")
    )
    subprocess.run(
        [*rendering["command"], script], check=True, env={"NODE_NAME": "node-7", "PATH": "/usr/bin:/bin"}
    )
    read = loads((tmp_path / "run" / "cachee.toml").read_bytes(), "cachee.toml")
    assert read.host.name == "node-7"
    assert seen(rendering)["/run/cachee"] == seen(bridge_of("daemonset")[0])["/run/cachee"]


def test_every_pod_may_do_as_little_as_it_needs() -> None:
    for flavour in FLAVOURS:
        for pod in pods(flavour):
            assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
            assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in containers(pod):
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert kind(flavour, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_image_runs_the_command_with_options_that_it_has() -> None:
    text = (SHIPPED / "Containerfile").read_text()
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.M)
    for arguments in (re.findall(r'"([^"]*)"', command), bridge_of("daemonset")[0]["args"]):
        assert _parser().parse_args(arguments).log_format == "json"
    assert 'ENTRYPOINT ["cachee-bridge"]' in text
