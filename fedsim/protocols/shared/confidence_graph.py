"""The confidence graph: question - exemplar - client (FedGRPO, eqs. 5 and 6).

A question is joined to its L nearest labelled exemplars, an exemplar to the clients that answered it. A
client's competence for the question is its accuracy on those exemplars:

    G(x)  = the L exemplars of largest cosine(phi(x), phi(x_p))                     (eq. 5)
    r_k^p = (1 / L) sum_{l in G(x)} 1[client k answers x_{p,l} correctly]           in [0, 1]
    C(x)  = the M clients of largest r_k^p                                          (eq. 6)

Two ways lead to the same competence. ``probe: once`` keeps every client's correctness bits at the server
(`record`) and sends nothing per question; ``probe: per_question`` (the paper) broadcasts G(x) and each
client sends back `mean_correct` of its own bits. Both are the same sum of zeros and ones divided by L, so
they agree to the last bit and choose the same experts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim.protocols.shared.expert_ranking import best_experts
from fedsim.tasks.questions import Question

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def mean_correct(correct: Sequence[bool] | npt.NDArray[np.bool_]) -> float:
    """r_k^p as client k computes it: the share of correct answers among the exemplars it was sent.

    Raises:
        ValueError: there is no exemplar.
    """
    if len(correct) == 0:
        raise ValueError("no exemplar, no competence")
    return float(np.sum(np.asarray(correct, dtype=np.float64)) / len(correct))


class ConfidenceGraph:
    """Exemplars in embedding space and what each client answers on them.

    Attributes:
        embeddings: unit vectors of the exemplars, ``[P, d]``.
        correctness: 1 correct, 0 wrong, NaN not (yet) answered, ``[K, P]``.
    """

    def __init__(self, exemplar_embeddings: FloatArray, correctness: FloatArray) -> None:
        """Build from embeddings ``[P, d]`` and correctness ``[K, P]`` (NaN or -1 where not answered).

        Raises:
            ValueError: shapes do not fit, no exemplar, an embedding that is not finite, or an entry that
                is not 1, 0, -1 or NaN.
        """
        self.embeddings = _unit(np.atleast_2d(np.asarray(exemplar_embeddings, dtype=np.float64)))
        self.correctness: FloatArray = np.array(correctness, dtype=np.float64)
        if (
            self.correctness.ndim != 2
            or self.correctness.shape[1] != len(self.embeddings)
            or not self.num_exemplars
        ):
            raise ValueError(
                f"shapes are {self.embeddings.shape} and {self.correctness.shape}; must be [P, d] "
                "and [K, P], P >= 1"
            )
        self.correctness[self.correctness == -1] = np.nan
        known = self.correctness[~np.isnan(self.correctness)]
        if not ((known == 0) | (known == 1)).all():
            raise ValueError("correctness holds a value other than 1, 0, -1 and NaN")
        self._probed = frozenset(np.flatnonzero((~np.isnan(self.correctness)).any(axis=1)).tolist())

    @classmethod
    def unprobed(cls, exemplar_embeddings: FloatArray, num_clients: int) -> ConfidenceGraph:
        """A graph of ``num_clients`` clients none of which has answered the probe."""
        return cls(exemplar_embeddings, np.full((num_clients, len(exemplar_embeddings)), np.nan))

    @property
    def num_exemplars(self) -> int:
        """P, the number of exemplars."""
        return len(self.embeddings)

    @property
    def num_clients(self) -> int:
        """K, the number of clients."""
        return len(self.correctness)

    def record(self, client_id: int, correct: Sequence[bool] | npt.NDArray[np.bool_]) -> None:
        """Keep a client's correctness bits ``[P]``, replacing what an earlier version of its model answered.

        Raises:
            ValueError: not one bit per exemplar, or no such client.
        """
        if not 0 <= client_id < self.num_clients:
            raise ValueError(f"client_id is {client_id}; must be from 0 to {self.num_clients - 1}")
        bits = np.asarray(correct, dtype=np.bool_)
        if bits.shape != (self.num_exemplars,):
            raise ValueError(f"{bits.shape} bits for {self.num_exemplars} exemplars; must be one each")
        self.correctness[client_id] = bits
        self._probed |= {client_id}

    def probed(self) -> frozenset[int]:
        """Ids of the clients that have answered the probe, at least in part."""
        return self._probed

    def neighbours(self, embedding: FloatArray, num_neighbours: int) -> IntArray:
        """G(x): the exemplars nearest by cosine, nearest first; equal ones in order of index (eq. 5).

        Args:
            embedding: phi(x), ``[d]``; need not be a unit vector.
            num_neighbours: L; all P exemplars when L is larger.

        Returns:
            Exemplar indices, int64 ``[min(L, P)]``.

        Raises:
            ValueError: ``num_neighbours`` is less than one, or the embedding is not finite or not ``[d]``.
        """
        if num_neighbours < 1:
            raise ValueError(f"num_neighbours is {num_neighbours}; must be at least 1")
        return np.argsort(-self._cosines(embedding), kind="stable")[:num_neighbours].astype(np.int64)

    def competence(self, embedding: FloatArray, num_neighbours: int) -> FloatArray:
        """r^p, each client's accuracy on the question's neighbours, ``[K]``; NaN where it answered none."""
        return self.competence_on(self.neighbours(embedding, num_neighbours))

    def competence_on(self, exemplars: IntArray) -> FloatArray:
        """Each client's accuracy on these exemplars, ``[K]``; NaN where it answered none of them."""
        bits = self.correctness[:, exemplars]
        unknown = np.isnan(bits)
        answered = len(exemplars) - unknown.sum(axis=1)
        correct = np.where(unknown, 0.0, bits).sum(axis=1)
        return np.asarray(np.where(answered > 0, correct / np.maximum(answered, 1), np.nan), dtype=np.float64)

    def experts(
        self,
        question_id: int,
        embedding: FloatArray,
        num_experts: int,
        *,
        num_neighbours: int,
        eligible: Collection[int],
        seed: int,
    ) -> tuple[int, ...]:
        """C(x): the eligible clients of highest competence, best first, ties by a keyed draw (eq. 6)."""
        scores = self.competence(embedding, num_neighbours)
        return best_experts(scores, question_id, num_experts, eligible, seed)

    def sample(
        self,
        questions: Sequence[Question],
        embeddings: FloatArray,
        num_neighbours: int,
        exemplars: Sequence[Question] = (),
    ) -> dict[str, list[dict[str, Any]]]:
        """The graph of some questions as two tables, to be looked at: ``nodes`` (``id``), ``edges`` (``source``, ``target``).

        Nodes are ``q<question_id>``, ``e<index>``, ``c<client_id>`` with ``kind`` question, exemplar or
        client (and ``domain``, ``text`` where known). Edges: question - exemplar, ``kind`` near,
        ``weight`` their cosine; exemplar - client, ``kind`` answered, ``weight`` 1 correct or 0 wrong.
        Exemplars that are nobody's neighbour are left out.
        """
        probed = self.probed()
        nodes: list[dict[str, Any]] = [
            {"id": f"c{client}", "kind": "client", "probed": client in probed}
            for client in range(self.num_clients)
        ]
        edges: list[dict[str, Any]] = []
        used: set[int] = set()
        for question, embedding in zip(questions, embeddings, strict=True):
            node = f"q{question.question_id}"
            nodes.append({"id": node, "kind": "question", "domain": question.domain, "text": question.text})
            cosines = self._cosines(embedding)
            for index in self.neighbours(embedding, num_neighbours).tolist():
                used.add(index)
                weight = float(cosines[index])
                edges.append({"source": node, "target": f"e{index}", "kind": "near", "weight": weight})
        for index in sorted(used):
            node = f"e{index}"
            known = {"domain": exemplars[index].domain, "text": exemplars[index].text} if exemplars else {}
            nodes.append({"id": node, "kind": "exemplar", **known})
            for client in np.flatnonzero(~np.isnan(self.correctness[:, index])).tolist():
                weight = float(self.correctness[client, index])
                edges.append({"source": node, "target": f"c{client}", "kind": "answered", "weight": weight})
        return {"nodes": nodes, "edges": edges}

    def _cosines(self, embedding: FloatArray) -> FloatArray:
        embedding = np.asarray(embedding, dtype=np.float64)
        if embedding.shape != self.embeddings.shape[1:]:
            raise ValueError(f"embedding has shape {embedding.shape}; must be {self.embeddings.shape[1:]}")
        return np.asarray(self.embeddings @ _unit(embedding[None, :])[0], dtype=np.float64)


def _unit(vectors: FloatArray) -> FloatArray:
    if not np.isfinite(vectors).all():
        raise ValueError("an embedding is not finite")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float64)
