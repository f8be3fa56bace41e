"""The engines in what Kubernetes, SkyPilot and Ray Serve answer: from parsed JSON to base URLs.

    kubernetes   EndpointSlices of a Service (discovery.k8s.io/v1): every endpoint that is ready and not terminating
    sky          `replica_info` of `sky serve status` (SkyPilot's API server): every replica that is READY
    ray          `target_groups` of `GET /api/serve/applications/` (Ray Serve): where an application takes HTTP

An answer of another shape raises DiscoveryError, which says what is wrong with it; it never counts as "no engine".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spillway_router.config.discovery import DiscoveryError, engine_urls
from spillway_router.config.service_name import ServiceName

RAY_PROXY = "SERVE_PROXY"
"""How Ray names the actors of its proxies begin."""
USUAL_PORT = "http"
"""The name of the port that is taken where a Service has several and none is named in the configuration."""


def kubernetes_engines(slices: Iterable[Mapping[str, Any]], service: ServiceName) -> tuple[str, ...]:
    """Return the base URLs of the endpoints that are ready. In a cluster of two address families each pod is listed
    twice, once by family; it is taken once, by IPv4.

    Raises DiscoveryError where it is not clear which port is meant, or a slice is not readable.
    """
    by_pod: dict[str, tuple[int, str]] = {}
    for number, one in enumerate(slices):
        try:
            family = {"IPv4": 0, "IPv6": 1}.get(str(one["addressType"]), 2)
            endpoints = [endpoint for endpoint in one.get("endpoints") or () if _serves(endpoint)]
            if not endpoints:
                continue
            scheme, port = _port(one.get("ports") or (), service)
            for endpoint in endpoints:
                address = str(endpoint["addresses"][0])
                host = f"[{address}]" if family == 1 else address
                pod = str((endpoint.get("targetRef") or {}).get("uid") or f"{number} {address}")
                url = f"{scheme}://{host}:{port}/v1"
                by_pod[pod] = min(by_pod.get(pod, (family, url)), (family, url))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise DiscoveryError(f"an EndpointSlice of {service.name} can't be read: {error!r}") from error
    return engine_urls(url for _, url in by_pod.values())


def _serves(endpoint: Mapping[str, Any]) -> bool:
    """Return whether an endpoint may get requests. A condition that is missing counts as Kubernetes defines it."""
    conditions = endpoint.get("conditions") or {}
    return conditions.get("ready") is not False and not conditions.get("terminating")


def _port(ports: Sequence[Mapping[str, Any]], service: ServiceName) -> tuple[str, int]:
    """Return the scheme and the number of the port that is meant."""
    tcp = [one for one in ports if (one.get("protocol") or "TCP") == "TCP" and one.get("port")]
    wanted = service.port or (USUAL_PORT if len(tcp) > 1 else "")
    meant = [one for one in tcp if not wanted or wanted in (one.get("name"), str(one["port"]))]
    if len(meant) != 1:
        named = ", ".join(f"{one.get('name') or '(no name)'} {one['port']}" for one in tcp) or "none"
        raise DiscoveryError(
            f"Service {service.namespace}/{service.name} has the ports {named}; name one: "
            f"{service.namespace}/{service.name}:PORT"
        )
    (port,) = meant
    secure = port.get("appProtocol") == "https" or port.get("name") == "https"
    return ("https" if secure else "http"), int(port["port"])


def sky_engines(services: object, name: str) -> tuple[str, ...]:
    """Return the base URLs of the replicas of a service that are READY. Raises DiscoveryError, also for a service that
    SkyPilot does not know."""
    try:
        (service,) = [one for one in _list(services) if one["name"] == name]
        replicas = _list(service["replica_info"])
        ready = [str(one["endpoint"]) for one in replicas if one["status"] == "READY" and one.get("endpoint")]
    except ValueError as error:
        raise DiscoveryError(f"SkyPilot has no service {name}; `sky serve status` lists them") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DiscoveryError(f"SkyPilot's status can't be read: {error!r}") from error
    return engine_urls(f"{_with_scheme(endpoint).rstrip('/')}/v1" for endpoint in ready)


def _with_scheme(endpoint: str) -> str:
    return endpoint if "://" in endpoint else f"http://{endpoint}"


def ray_engines(details: object, application: str) -> tuple[str, ...]:
    """Return the base URLs at which a Ray Serve application takes HTTP: its replicas' own where Ray lets them listen
    (direct ingress), else the proxies of the nodes. Raises DiscoveryError, also for an application that Ray does not
    know."""
    try:
        applications = _mapping(_mapping(details)["applications"])
        if application not in applications:
            names = ", ".join(sorted(map(str, applications))) or "none"
            raise DiscoveryError(f"Ray Serve has no application {application}; it has: {names}")
        route = applications[application].get("route_prefix")
        groups = [one for one in _list(_mapping(details).get("target_groups", [])) if one["protocol"] == "HTTP"]
        # A group of one application names it, and has the proxies in it while the application has no replica. The group
        # of the proxies names none: it leads to all applications, by prefix.
        own = [one for one in groups if one.get("app_name") == application]
        taken = own or [one for one in groups if not one.get("app_name")]
        prefix = str(route or "/").rstrip("/")
        if applications[application].get("status") in ("DELETING", "DEPLOY_FAILED", "NOT_STARTED"):
            return ()
        targets = [target for group in taken for target in _list(group["targets"])]
        if own:
            targets = [one for one in targets if not str(one.get("name", "")).startswith(RAY_PROXY)]
        return engine_urls(f"http://{_host(str(one['ip']))}:{int(one['port'])}{prefix}/v1" for one in targets)
    except (KeyError, TypeError, AttributeError) as error:
        raise DiscoveryError(f"Ray Serve's answer can't be read: {error!r}") from error


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list was expected, not {type(value).__name__}")
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"an object was expected, not {type(value).__name__}")
    return value
