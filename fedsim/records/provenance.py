"""By what a run was made: the machine, the versions it depends on, the source code and its commit."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from hashlib import blake2b
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
_DISTRIBUTIONS = {"fedsim": "fedgrpo-sim"} | {
    name: name
    for name in (
        "torch", "transformers", "peft", "safetensors", "numpy", "scipy", "simpy", "networkx", "polars",
        "msgspec", "pydantic", "reasoning-gym",
    )
}  # fmt: skip
# The instruction sets that torch's kernels choose by: two CPUs that agree here give the same bits.
_CPU_FEATURES = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimdhp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip


def platform_facts() -> dict[str, str]:
    """What decides whether two machines compute the same bits: system, CPU model and its features."""
    model, features = _cpu()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": model,
        "cpu_features": " ".join(name for name in _CPU_FEATURES if name in features),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the distributions that numbers depend on, without importing them."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    # Looked up once: in a process that runs many short scenarios it was a tenth of each.
    found = {"python": platform.python_version()}
    for name, distribution in _DISTRIBUTIONS.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def source_hash() -> str:
    """Hash of every source and preset file of the package: two runs of one hash were made by the same program."""
    state = blake2b(digest_size=16)
    package = Path(__file__).resolve().parent.parent
    for path in sorted([*package.rglob("*.py"), *(package / "sim" / "presets").glob("*.*")]):
        state.update(f"{path.relative_to(package).as_posix()}\0".encode())
        state.update(path.read_bytes())
    return state.hexdigest()


def git_commit(checkout: Path = SOURCE) -> str | None:
    """Commit of the source checkout (``-dirty`` if tracked files differ); None when installed without git."""
    commit = git("rev-parse", "HEAD", checkout=checkout)
    changed = git("status", "--porcelain", "--untracked-files=no", checkout=checkout)
    return None if commit is None or changed is None else commit + ("-dirty" if changed else "")


def git(*arguments: str, checkout: Path = SOURCE) -> str | None:
    """What git says about the source checkout; None without a checkout, without git, or where it refuses."""
    if not (checkout / ".git").exists():
        return None
    # Inside a git hook these point at another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(checkout), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def code_fingerprint(source: str) -> str:
    """The syntax tree of a module as text, without docstrings: comments and layout do not change it."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.dump(tree)


def _cpu() -> tuple[str, frozenset[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = facts.get("flags") or facts.get("Features") or ""
    return facts.get("model name") or platform.machine(), frozenset(features.split())
