"""What one device can do: absolute rates in base units, frozen."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One device, as the cost model and the network see it.

    ``peak_flop_per_s`` bounds prefill and training, ``memory_bytes_per_s`` bounds decoding; both are the
    maker's peaks, and the two efficiencies say which share of them a runtime reaches; each layer of each pass costs
    ``step_overhead_s`` besides. A ``*_jitter`` is the
    sigma of a lognormal factor of mean 1: of a computation or one-way delay, drawn anew for every one, or of the
    access rate, which varies in time (`fedsim.sim.network.rates`). ``up`` is from the device to the server. Radio energy is
    charged per byte on the wire.
    """

    device_class: str
    peak_flop_per_s: float
    memory_bytes_per_s: float
    compute_efficiency: float
    memory_efficiency: float
    memory_bytes: float
    overhead_s: float
    step_overhead_s: float
    compute_jitter: float
    up_bytes_per_s: float
    down_bytes_per_s: float
    rtt_s: float
    up_jitter: float
    down_jitter: float
    rtt_jitter: float
    power_active_w: float
    power_idle_w: float
    radio_up_j_per_byte: float
    radio_down_j_per_byte: float


NUMERIC_FIELDS: tuple[str, ...] = tuple(
    field.name for field in fields(DeviceProfile) if field.name != "device_class"
)
