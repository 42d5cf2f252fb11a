"""A tokenizer that makes arithmetic learnable by a model of a million weights.

Three rules, found by measuring: every constant piece of a question's template is ONE token; numbers are right-aligned
chunks of at most two digits (``104`` is ``1``, ``04``); everything else is single characters. The pieces are read
off the data: a word that appears in at least ``CONSTANT_SHARE`` of a domain's questions, or of its worked solutions, is
constant, and a maximal run of constant words with the spaces and marks around them is one piece. Encoding a question
appends ``<answer>``, so that a question and an answer made of the same characters can be told apart. Decoding gives back
the text exactly.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fedsim.tasks.questions import Question

PAD, EOS, UNK, ANSWER = "<pad>", "<eos>", "<unk>", "<answer>"
CONSTANT_SHARE = 0.05
"""A word in at least this share of a domain's questions belongs to a template."""

_MAX_PIECES = 400
_ATOMS = re.compile(r"\d+|[^\W\d_]+|(?:[^\w]|_)+")
_PRINTABLE = [chr(code) for code in range(32, 127)] + ["\n"]
_NUMBER = r"\d{1,2}(?=(?:\d\d)*(?!\d))"


def template_pieces(questions: Iterable[Question]) -> list[str]:
    """The constant pieces of the questions' templates, longest first, then by text.

    Depends on the set of questions only, not on their order. Texts in which everything varies give no pieces.
    """
    texts: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        texts[question.domain].add(question.text)
    counts: Counter[str] = Counter()
    for domain in texts.values():
        constant = _constant_words(domain)
        least = max(2, CONSTANT_SHARE * len(domain) / 5)
        runs = Counter(run for text in domain for run in set(_constant_runs(text, constant)))
        counts.update({run: seen for run, seen in runs.items() if seen >= least and len(run) > 1})
    kept = sorted(counts, key=lambda run: (-counts[run], run))[:_MAX_PIECES]
    return sorted(kept, key=lambda run: (-len(run), run))


def build_tokenizer(questions: Iterable[Question]) -> PreTrainedTokenizerFast:
    """Build the tokenizer of one data set from its questions, answers and worked solutions.

    The result is an ordinary fast tokenizer: ``save_pretrained`` writes it, ``AutoTokenizer`` reads it. Characters
    that occur neither in the data nor in printable ASCII become ``<unk>``.
    """
    questions = [*questions]
    questions += [
        replace(q, domain=f"solutions of {q.domain}", text=q.solution) for q in questions if q.solution
    ]
    pieces = template_pieces(questions)
    characters = set(_PRINTABLE).union(*(set(q.text) | set(q.answer) for q in questions))
    numbers = [f"{n:02d}" for n in range(100)]
    words = dict.fromkeys([PAD, EOS, UNK, ANSWER, *numbers, *sorted(characters), *sorted(pieces)])
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    pattern = "|".join([*(re.escape(piece) for piece in pieces), _NUMBER, r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {ANSWER}", special_tokens=[(ANSWER, vocabulary[ANSWER])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
    )
    fast.add_special_tokens({"additional_special_tokens": [ANSWER]})
    return fast


def _constant_words(texts: set[str]) -> frozenset[str]:
    """Words of two or more letters in at least ``CONSTANT_SHARE`` of the texts (and in at least two)."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update({atom for atom in _ATOMS.findall(text) if len(atom) > 1 and atom[0].isalpha()})
    least = max(2.0, CONSTANT_SHARE * len(texts))
    return frozenset(word for word, count in seen.items() if count >= least)


def _constant_runs(text: str, constant: frozenset[str]) -> list[str]:
    """Maximal runs of constant words and marks in one text."""
    runs, run = [], ""
    for atom in _ATOMS.findall(text):
        if atom in constant or not (atom[0].isalnum()):
            run += atom
        elif run:
            runs.append(run)
            run = ""
    return [*runs, run] if run else runs
