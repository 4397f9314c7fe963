"""gRPC's settings, the same for every server and channel."""

from __future__ import annotations

from libs.rpc.error_catalog import MAX_MESSAGE_BYTES

_COMMON: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Error texts travel as metadata; gRPC's default of 8 KiB is near what `error_catalog` allows them.
    ("grpc.max_metadata_size", 32 * 1024),
    # A dead link is noticed within 30 s even when nothing is sent; long-lived streams are often silent.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON,
    # With port sharing on, a second server on a taken port would start and get half of the calls.
    ("grpc.so_reuseport", 0),
    # Clients ping every 20 s; the default would hang up on them for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON,
    # A service that was restarted is found again within seconds, not after two minutes of backing off.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    # One connection per channel: certificates and failures of one never reach another.
    ("grpc.use_local_subchannel_pool", 1),
    # Neither DNS nor the environment configures our channels.
    ("grpc.service_config_disable_resolution", 1),
)
