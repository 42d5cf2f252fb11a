"""Settings of the network: the server's link and how messages travel."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fedsim.config.strict import StrictModel
from fedsim.config.units import LinkRate, PositiveSeconds, Seconds
from fedsim.sim.network.edges import EdgesConfig
from fedsim.sim.network.tcp import Congestion


class ServerLinkConfig(StrictModel):
    """The server's link, shared by all clients; ``up`` is towards the server, as everywhere."""

    up: LinkRate = Field(description="Rate from the clients to the server, bytes/s, or unlimited.")
    down: LinkRate = Field(description="Rate from the server to the clients, bytes/s, or unlimited.")


def _both_ways(value: Any) -> Any:
    return {"up": value, "down": value} if isinstance(value, str | float | int) else value


class NetworkConfig(StrictModel):
    """How messages travel: ``ideal`` carries the encoded message alone, ``tcp`` adds headers and TLS."""

    server_link: Annotated[
        ServerLinkConfig, BeforeValidator(_both_ways, json_schema_input_type=str | ServerLinkConfig)
    ] = Field(
        default=ServerLinkConfig(up="1 Gbit/s", down="1 Gbit/s"),  # type: ignore[arg-type]
        description="Shared link of the server: one rate for both directions, or {up, down}.",
    )
    transport: Literal["ideal", "tcp"] = Field(default="tcp", description="Transport overhead of a message.")
    connection: Literal["keep_alive", "per_request"] = Field(
        default="keep_alive", description="tcp: connections stay open, or every request pays the handshakes."
    )
    segment_payload: int = Field(
        default=1448, ge=1, le=65_495, description="tcp: payload bytes of a full segment (1500 - 52)."
    )
    segment_header: int = Field(
        default=52,
        ge=0,
        le=200,
        description="tcp: header bytes of a segment (IPv4 20, TCP 20, timestamps 12).",
    )
    tls_record: int = Field(
        default=22,
        ge=0,
        le=1024,
        description="tcp: bytes TLS 1.3 adds to a record of at most 16 KiB (0 = no TLS).",
    )
    extra_rtt: Seconds = Field(default=0.0, description="Round-trip time beyond the access link, seconds.")
    loss: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="tcp: probability that one sending of a segment is lost; also limits the rate (`fedsim.sim.network.tcp`).",
    )
    congestion: Congestion = Field(
        default="cubic",
        description="tcp: how windows answer losses and grow again: cubic (RFC 9438; what today's devices run) or reno.",
    )
    slow_start: bool = Field(
        default=True,
        description="tcp: a message longer than the initial window of 10 segments goes no faster than its window grows.",
    )
    edges: EdgesConfig | None = Field(
        default=None,
        description="Relays between clients and server, by name or {file: tree.graphml} (`fedsim.sim.network.edges`).",
    )
    rate_period: PositiveSeconds = Field(
        default=10.0,
        ge=1e-3,
        description="How long an access link keeps its rate, seconds; then jitter (up_jitter, down_jitter) gives it another.",
    )
    rate_memory: float = Field(
        default=0.8,
        ge=0,
        le=0.99,
        description="Correlation of an access link's log rate from one period to the next (0 = independent).",
    )
