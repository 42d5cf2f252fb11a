"""The frozen encoder phi: where a question lies among the others, by the initial policy's hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedsim.models.language import LanguageModel, by_width, padded_prompts
from fedsim.roles import FloatArray

_QUESTIONS_AT_ONCE = 128


class Encoder:
    """phi(x): mean over a question's tokens of all layers' mean hidden state, centred, l2-normalised.

    Args:
        language: the frozen initial policy.
        centre: questions whose mean is taken off, so that what all questions share does not count as similarity.
    """

    def __init__(self, language: LanguageModel, centre: Sequence[str]) -> None:
        self._language = language
        self._centre_texts = tuple(dict.fromkeys(centre))
        self._centre: FloatArray | None = None
        self._states: dict[str, FloatArray] = {}

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings ``[n, d]``; cosine similarity is their inner product. A pure function of the text."""
        if self._centre is None:
            self._centre = self._pooled(self._centre_texts).mean(0) if self._centre_texts else np.zeros(1)
        features = self._pooled(texts) - self._centre
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        return np.asarray(features / np.maximum(norms, 1e-12))

    @torch.no_grad()
    def _pooled(self, texts: Sequence[str]) -> FloatArray:
        missing = [text for text in dict.fromkeys(texts) if text not in self._states]
        for batch in by_width(self._language, missing, str, _QUESTIONS_AT_ONCE):
            prompts = [self._language.prompt_ids(text) for text in batch]
            for inputs, real, count in padded_prompts(self._language, prompts):
                out = self._language.network(
                    **inputs, use_cache=False, output_hidden_states=True, logits_to_keep=1
                )
                states = torch.stack(out.hidden_states).mean(0)
                weights = real[..., None].to(states.dtype)
                means = ((states * weights).sum(1) / weights.sum(1)).double().numpy()
                for text, mean in zip(batch[:count], means[:count], strict=True):
                    self._states[text] = mean
                batch = batch[count:]
        return np.stack([self._states[text] for text in texts])
