"""Remembering how the initial policy did: every run of a seed starts from the same weights and asks the same questions.

A measurement is a pure function of weights, questions, sampling settings and seed (``evaluation.py``), so it may be read back
instead of made again. The key holds all of that, the platform, and the source of everything that computes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fedsim.models.cache import platform_facts, sources_hash
from fedsim.models.interfaces import Accuracy
from fedsim.records.content_hashes import keep, kept
from fedsim.tasks.questions import Question

_DETERMINING_SOURCES = (
    "models/real/adapters.py", "models/real/batch_fitting.py", "models/real/evaluation.py", "models/real/language.py",
    "models/real/lean_llama.py", "models/real/likelihood.py", "models/real/packed.py", "models/real/sampling.py",
    "models/real/tokenizer.py", "models/real/tokens.py", "models/real/zoo.py", "rl/losses.py", "tasks/matching.py",
    "sim/streams.py",
)  # fmt: skip


class FirstLooks:
    """Accuracies of one initial policy, in files of a folder that runs share.

    Args:
        folder: where they are kept.
        parts: what determines a measurement beside questions, samples and platform (JSON).
    """

    def __init__(self, folder: Path, parts: Mapping[str, Any]) -> None:
        self._folder = folder
        self._parts = dict(parts)

    def look(
        self, questions: Sequence[Question], num_samples: int, measure: Callable[[], Accuracy]
    ) -> Accuracy:
        """The accuracy on these questions: read back if any run has measured it, else measured and kept.

        Raises:
            CacheError: what was kept is not what was written.
        """
        path = self._folder / f"{self._key(questions, num_samples)}.kept"
        content = kept(path)
        if content is not None:
            return Accuracy(**json.loads(content))
        accuracy = measure()
        keep(path, json.dumps(asdict(accuracy)).encode())
        return accuracy

    def _key(self, questions: Sequence[Question], num_samples: int) -> str:
        material = {
            "parts": self._parts,
            "questions": [(q.question_id, q.domain, q.text, q.answers) for q in questions],
            "samples": num_samples,
            "platform": platform_facts(),
            "source": sources_hash(_DETERMINING_SOURCES),
        }
        return blake2b(json.dumps(material, sort_keys=True).encode(), digest_size=16).hexdigest()
