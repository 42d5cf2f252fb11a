"""A process for parts of a run's models' work: ``python -m fedsim.models.real.run_worker THREADS``, see ``run_workers.py``.

Frames come on standard input: first the networks (``Hold``), then weights (``Weights``) and parts, each of which is answered by
a frame on standard output. There is no pickle in them. A first, empty frame says that torch is imported. The process ends when
standard input does, at once if a part is under way: it never outlives the run.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from dataclasses import dataclass
from io import RawIOBase
from typing import Any

import msgspec
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedsim.models.config import PolicyConfig
from fedsim.models.real import work_parts
from fedsim.models.real.gradients import GradientPart, gradient
from fedsim.models.real.language import LanguageModel, Shapes
from fedsim.models.real.stacked import Stack
from fedsim.processes.children import HEADER


class Network(msgspec.Struct, frozen=True):
    """A lean Llama: its configuration (JSON), its weights one after the other (float32), and how it is asked.

    ``requires_grad`` belongs to it: torch chooses another kernel, with other last bits, for a product with weights that do
    not, even where no gradient is kept.
    """

    config: str
    weights: bytes
    requires_grad: bool
    shapes: Shapes
    end_id: int


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """The networks of a run, and the settings of the policy and the seed (JSON)."""

    live: Network
    initial: Network
    clients: list[Network]
    settings: str


class Weights(msgspec.Struct, frozen=True, tag="weights"):
    """The live policy's weights from now on."""

    weights: bytes


Message = Hold | Weights | work_parts.Part


@dataclass(frozen=True)
class End:
    """All that a part needs of a tokenizer."""

    eos_token_id: int


def network_of(language: LanguageModel) -> Network:
    """What another process needs to compute as this model does."""
    weights = list(language.network.parameters())
    return Network(
        language.network.config.to_json_string(use_diff=False),
        np.concatenate([weight.detach().numpy().ravel() for weight in weights]).tobytes(),
        weights[0].requires_grad,
        language.shapes,
        language.end_id,
    )


def install(network: Any, weights: bytes) -> None:
    """Put weights into a network."""
    values = torch.frombuffer(bytearray(weights), dtype=torch.float32)
    given = list(network.parameters())
    for weight, own in zip(given, torch.split(values, [weight.numel() for weight in given]), strict=True):
        weight.data.copy_(own.view_as(weight))


def languages_of(networks: list[Network]) -> list[LanguageModel]:
    """Models that have the bits of those that were sent; they share one memory of tokens, which is never asked."""
    found: list[LanguageModel] = []
    for sent in networks:
        network = LlamaForCausalLM(LlamaConfig(**json.loads(sent.config))).eval()
        network.requires_grad_(sent.requires_grad)
        install(network, sent.weights)
        tokens = found[0].tokens if found else None
        tokenizer: Any = End(sent.end_id)
        found.append(LanguageModel(network, tokenizer, sent.shapes, tokens))
    assert all(language.is_lean for language in found)
    return found


class Models:
    """The networks of a run in this process."""

    def __init__(self, hold: Hold) -> None:
        self._live, self._initial = languages_of([hold.live, hold.initial])
        self._clients = languages_of(hold.clients)
        self._scorer = Stack(self._clients) if len(self._clients) > 1 else self._clients[0]
        settings = json.loads(hold.settings)
        self._config = PolicyConfig(**settings["policy"])
        self._seed: int = settings["seed"]

    def install(self, weights: bytes) -> None:
        """Take the live policy's weights."""
        install(self._live.network, weights)

    def does(self, part: work_parts.Part) -> Any:
        """What comes of a part."""
        if isinstance(part, work_parts.SamplePart):
            return work_parts.sampled(self._live, self._config, self._seed, part)
        if isinstance(part, work_parts.BehaviourPart):
            return work_parts.taken_down(self._live, self._config, part)
        if isinstance(part, work_parts.LookPart):
            return work_parts.looked(self._live, self._initial, self._config, self._seed, part)
        if isinstance(part, GradientPart):
            return gradient(self._live, self._initial, self._config, part)
        if isinstance(part, work_parts.AnswerPart):
            return work_parts.answered(self._clients[part.client], self._config.max_new_tokens, part)
        return work_parts.scored(self._scorer, part)


def _listen(stream: RawIOBase, frames: queue.SimpleQueue[bytes]) -> None:
    """Read frames as they come: whoever sends one never waits for a part to be done."""
    while header := _exactly(stream, HEADER.size):
        frames.put(_exactly(stream, HEADER.unpack(header)[0]))
    os._exit(0)


def _exactly(stream: RawIOBase, count: int) -> bytes:
    """So many bytes; the process ends where standard input does."""
    taken = bytearray()
    while len(taken) < count:
        piece = stream.read(count - len(taken))
        if not piece:
            os._exit(0)
        taken += piece
    return bytes(taken)


def main(threads: int) -> None:
    """Do what comes until standard input ends."""
    torch.set_num_threads(threads)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # Unbuffered: a thread that waits in a buffered stream holds a lock over which the interpreter's end would stumble.
    stream = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115 - open as long as the process
    threading.Thread(target=_listen, args=(stream, frames), daemon=True).start()
    models: Models | None = None

    def say(content: bytes) -> None:
        answers.write(HEADER.pack(len(content)) + content)
        answers.flush()

    say(b"")
    while True:
        message = work_parts.decoded(Message, frames.get())
        if isinstance(message, Hold):
            models = Models(message)
            continue
        assert models is not None
        if isinstance(message, Weights):
            models.install(message.weights)
        else:
            say(work_parts.encoded(models.does(message)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
