"""A client's model trained with DP-SGD: the public model of its size, tuned on its rows with clipped gradients and noise.

What such a model says, in rewards or in probe bits, is post-processing: it reveals no more of a training row than the model
would, however often it is asked. Not covered: the vocabulary (one character tokenizer is read off all questions of the run),
and how many rows a client has, which its sampling rate is made from.

References:
    Abadi et al., Deep Learning with Differential Privacy, CCS 2016; Dwork, Roth, The Algorithmic Foundations of Differential
    Privacy (2014), proposition 2.1 (post-processing).
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from fedsim.models.cache import sources_hash
from fedsim.models.real.dp_sgd import Protection, tune
from fedsim.models.real.training import EncodedRow, Trained
from fedsim.privacy.config import EvaluatorPrivacyConfig

_DETERMINING_SOURCES = (
    "models/real/dp_evaluator.py", "models/real/dp_sgd.py", "privacy/accounting.py", "sim/streams.py",
)  # fmt: skip


def tuned_privately(
    network: PreTrainedModel, rows: Sequence[EncodedRow], settings: EvaluatorPrivacyConfig, seed: int
) -> Trained:
    """Tune what is trainable of a network, in place; its loss is not looked at, because it would be one more release."""
    protection = Protection(settings.tuning.clip_norm, settings.noise_multiplier(len(rows)))
    tune(network, rows, settings.tuning, protection, seed)
    return Trained(settings.tuning.steps, float("nan"))


def dp_sgd_source() -> str:
    """Hash of the code that determines the weights, for the cache's key."""
    return sources_hash(_DETERMINING_SOURCES)
