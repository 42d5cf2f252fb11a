"""Scores of tiny models by a pool of actors and by this process, for a test that starts this file and reads its last line.

python -m tests.models.real.scoring_on_ray
"""

from __future__ import annotations

import json

import ray

from fedsim.models.real.evaluator import ModelEvaluator
from fedsim.models.real.placement import Placement
from fedsim.models.real.ray_scoring import ScoringPool
from fedsim.models.real.zoo import scratch_network
from fedsim.processes.ray_cluster import LOCAL, Cluster
from fedsim.progress import SilentProgress
from fedsim.tasks.matching import AnswerRule
from tests.samples.tiny_models import TINY, language, questions, tokenizer

NEW_TOKENS = 4
CANDIDATES = ["3", "12", "tac", "7 of 9", "a rather long answer", "3", ""]


def scored(evaluator, texts):
    """Likelihoods and own answers of an evaluator, some announced and some not."""
    for text in texts[:7]:
        evaluator.expect(text, CANDIDATES[:4])
        evaluator.expect_answer(text)
    return [[evaluator.likelihood(text, CANDIDATES) for text in texts], evaluator.answers(texts)]


def main() -> None:
    texts = [question.text for question in questions()[:12]]
    shared = language(scratch_network(TINY, tokenizer(), 1))
    models = [shared, shared, language(scratch_network(TINY, tokenizer(), 2))]
    rules = [None, None, AnswerRule(pattern="([0-9]+)")]
    local = [scored(ModelEvaluator(*one), texts) for one in zip(models, [NEW_TOKENS] * 3, rules, strict=True)]
    cluster = Cluster(LOCAL, 3, SilentProgress())
    pool = ScoringPool(cluster, 2)
    evaluators = [pool.evaluator(*one) for one in zip(models, [NEW_TOKENS] * 3, rules, strict=True)]
    far = [scored(evaluator, texts) for evaluator in evaluators]
    ray.kill(pool._actors[0], no_restart=False)  # as if its node had died
    more = [question.text for question in questions()[20:26]]
    again = scored(evaluators[2], more) == scored(ModelEvaluator(models[2], NEW_TOKENS, rules[2]), more)
    rough = ScoringPool(cluster, 1, placement=Placement(autocast="bf16"))
    bf16 = scored(rough.evaluator(shared, NEW_TOKENS), texts)[0]
    rough.close()
    pool.close()
    found = {
        "equal": far == local,
        "equal after a death": again,
        "two models differ": local[0] != local[2],
        "models held": len({evaluator._model.sha256 for evaluator in evaluators}),
        "tokens": evaluators[0].count_tokens("12") == shared.count_tokens("12"),
        "bf16 differs by": largest(bf16, local[0][0]),
        "still connected": ray.is_initialized(),
    }
    print(json.dumps(found))


def largest(ours, theirs) -> float:
    """Largest relative difference of two tables of scores."""
    pairs = [pair for rows in zip(ours, theirs, strict=True) for pair in zip(*rows, strict=True)]
    return max(abs(a - b) / b for a, b in pairs)


if __name__ == "__main__":
    main()
