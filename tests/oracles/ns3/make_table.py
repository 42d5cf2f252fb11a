"""Make `tcp.csv`: mean times of ns-3's TCP for one message (see README.md). Goes on where it stopped."""

import csv
import itertools
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FIELDS = ["congestion", "bytes", "rtt_ms", "loss", "access_mbit", "runs", "mean_s", "standard_error_s"]
SIZES = [10_000, 50_000, 200_000, 1_000_000, 5_000_000, 20_000_000]
PATHS = [
    (20, 0.0001),
    (20, 0.003),
    (60, 0.0005),
    (60, 0.01),
    (100, 0.001),
    (150, 0.003),
    (200, 0.0001),
    (200, 0.01),
]
ROWS = [
    (15_300_000, 95, 0.0005, 100), (15_300_000, 186, 0.003, 100), (1_000_000, 151, 0.003, 100), (60_000, 186, 0.003, 100),
    *((size, *path, 100) for size, path in itertools.product(SIZES, PATHS)),
    *((size, rtt, loss, 20) for size in (200_000, 5_000_000) for rtt, loss in ((60, 0.0005), (150, 0.003))),
]  # fmt: skip

SHARED = [
    (50, 50_000, 151, 100, 50), (50, 200_000, 151, 100, 50), (10, 1_000_000, 60, 100, 50), (10, 50_000, 200, 20, 50),
    (100, 30_000, 100, 100, 100), (4, 5_000_000, 95, 20, 50), (20, 300_000, 20, 100, 1000), (30, 2_000_000, 186, 100, 1000),
    (2, 500_000, 150, 100, 5), (100, 100_000, 40, 5, 1000), (8, 10_000, 151, 100, 1), (1, 1_000_000, 100, 100, 10),
]  # fmt: skip


def main() -> None:
    shared()
    table = HERE / "tcp.csv"
    done = {tuple(row[:5]) for row in csv.reader(table.open())} if table.exists() else set()
    with table.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not done:
            writer.writerow(FIELDS)
        for num_bytes, rtt_ms, loss, access_mbit in sorted(ROWS):
            for congestion in ("cubic", "reno", "cubic without friendliness"):
                key = tuple(map(str, (congestion, num_bytes, rtt_ms, loss, access_mbit)))
                if key in done or (
                    congestion == "cubic without friendliness" and num_bytes not in (5_000_000, 15_300_000)
                ):
                    continue
                runs = 100 if num_bytes < 500_000 else 60 if num_bytes < 4_000_000 else 32
                seconds = run(congestion, num_bytes, rtt_ms, loss, access_mbit, runs)
                mean = sum(seconds) / runs
                error = (sum((one - mean) ** 2 for one in seconds) / (runs - 1) / runs) ** 0.5
                writer.writerow([*key, runs, f"{mean:.4g}", f"{error:.2g}"])
                file.flush()


def shared() -> None:
    """N senders that start together, nothing lost."""
    with (HERE / "shared.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["senders", "bytes", "rtt_ms", "access_mbit", "server_mbit", "mean_s", "last_s"])
        for case in SHARED:
            names = ("senders", "bytes", "rtt", "access", "server")
            args = [f"--{name}={value}" for name, value in zip(names, case, strict=True)]
            printed = subprocess.run([sys.argv[1], *args], check=True, capture_output=True, text=True).stdout
            writer.writerow([*case, *(f"{float(one):.4g}" for one in printed.split())])


def run(
    congestion: str, num_bytes: int, rtt_ms: float, loss: float, access_mbit: float, runs: int
) -> list[float]:
    kind = {"cubic": "Cubic9438", "reno": "ns3::TcpNewReno"}.get(congestion, "ns3::TcpCubic")
    args = [f"--congestion={kind}", f"--bytes={num_bytes}", f"--rtt={rtt_ms}", f"--loss={loss}",
            f"--access={access_mbit}", f"--runs={runs}"]  # fmt: skip
    printed = subprocess.run([sys.argv[1], *args], check=True, capture_output=True, text=True).stdout
    return [float(line.split()[0]) for line in printed.splitlines()]


if __name__ == "__main__":
    main()
