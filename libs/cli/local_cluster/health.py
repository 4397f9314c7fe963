"""Asks a service over mTLS whether it is ready, as an orchestrator's probe would."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from libs.core.errors import DeadlineExceeded
from libs.rpc.identity import Identity, TlsFiles
from libs.rpc.tls import channel_credentials

_POLL_S = 0.05
_CALL_S = 2.0


def wait_until_serving(
    *, address: str, server: Identity, tls: TlsFiles, timeout_s: float, still_running: Callable[[], None]
) -> None:
    """Return once the service answers SERVING. `still_running` raises when waiting is pointless.

    Synchronous on purpose: it is used outside and inside of running event loops.
    """
    options = [("grpc.ssl_target_name_override", server.dns_name), ("grpc.max_reconnect_backoff_ms", 200)]
    deadline = time.monotonic() + timeout_s
    with grpc.secure_channel(address, channel_credentials(tls), options=options) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            still_running()
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(service=""), timeout=_CALL_S)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass  # not up yet; a process that died is reported by still_running
            time.sleep(_POLL_S)
    raise DeadlineExceeded(f"{server.uri} did not become ready within {timeout_s:.0f} s. Its log says why.")


def wait_until_listening(address: str, *, timeout_s: float, still_running: Callable[[], None]) -> None:
    """Return once something accepts connections at `address`, whatever it is."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        still_running()
        try:
            with socket.create_connection((host, int(port)), timeout=_CALL_S):
                return
        except OSError:
            time.sleep(_POLL_S)
    raise DeadlineExceeded(f"Nothing listened on {address} within {timeout_s:.0f} s.")
