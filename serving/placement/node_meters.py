"""The meters of a cluster's nodes: one actor each, found by its name."""

from __future__ import annotations

from typing import Any

NODE_METER = "wattgate-node-meter"
"""Name of a node's meter actor, before the node's id."""
_LAST_WORDS_SECONDS = 5.0
"""For the node meters to write their history at the end."""


def meters_alive() -> dict[str, str]:
    """Node id to its meter's name, of the living nodes of the Ray cluster that this process is in."""
    import ray

    meters = {name for name in ray.util.list_named_actors() if name.startswith(NODE_METER)}
    names = {node["NodeID"]: f"{NODE_METER}-{node['NodeID']}" for node in ray.nodes() if node["Alive"]}
    return {node: name for node, name in names.items() if name in meters}


def other_meters() -> list[Any]:
    """The meters of the cluster's other living nodes."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    return [ray.get_actor(name, namespace="wattgate") for node, name in meters_alive().items() if node != own]


def meters_by_address() -> dict[str, Any]:
    """The meters of the cluster's living nodes, this one's too, by the nodes' addresses."""
    import ray

    alive = meters_alive()
    return {
        node["NodeManagerAddress"]: ray.get_actor(alive[node["NodeID"]], namespace="wattgate")
        for node in ray.nodes()
        if node["NodeID"] in alive
    }


def stop_node_meters() -> None:
    """Whatever cannot be written by then stays as a killed node leaves it: the last seconds of history are lost."""
    import ray
    from ray.util import list_named_actors

    found = [one for one in list_named_actors(all_namespaces=True) if one["name"].startswith(NODE_METER)]
    meters = [ray.get_actor(one["name"], namespace=one["namespace"]) for one in found]
    if meters:
        ray.wait([meter.stop.remote() for meter in meters], num_returns=len(meters), timeout=_LAST_WORDS_SECONDS)
