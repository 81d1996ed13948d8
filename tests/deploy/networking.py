"""A reader of NetworkPolicies, from their specification: may this pod open a connection to that port of that pod?

A pod that no policy of a direction selects is open in that direction; one that some select may do what any of them
allows. Both ends must allow a connection. A peer with a pod and a namespace selector must match both; with a pod
selector alone, in the policy's own namespace. Source: Kubernetes documentation, "Network Policies".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pod:
    """What a policy sees of a pod."""

    namespace: str
    labels: dict
    namespace_labels: dict


def selects(selector: dict, labels: dict) -> bool:
    """Whether a label selector matches; an empty one matches all."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}, selector
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for term in selector.get("matchExpressions", []):
        assert term["operator"] == "In", f"not read here: {term}"
        if labels.get(term["key"]) not in term["values"]:
            return False
    return True


def _peer(peer: dict, home: str, pod: Pod | None) -> bool:
    if "ipBlock" in peer:
        return pod is None
    if pod is None:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], pod.namespace_labels):
            return False
    elif pod.namespace != home:
        return False
    return selects(peer.get("podSelector", {}), pod.labels)


def _direction(policies: list[dict], pod: Pod, other: Pod | None, port: int, *, kind: str) -> bool:
    rules, peers = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}[kind]
    ours = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and kind in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not ours:
        return True
    for policy in ours:
        for rule in policy["spec"].get(rules, []):
            ports = [item["port"] for item in rule.get("ports", [])]
            home = policy["metadata"]["namespace"]
            if (not ports or port in ports) and (
                not rule.get(peers) or any(_peer(peer, home, other) for peer in rule[peers])
            ):
                return True
    return False


def connects(policies: list[dict], source: Pod, target: Pod | None, port: int) -> bool:
    """Whether `source` reaches `port` of `target`; None stands for an address outside the cluster."""
    leaves = _direction(policies, source, target, port, kind="Egress")
    return leaves and (target is None or _direction(policies, target, source, port, kind="Ingress"))
