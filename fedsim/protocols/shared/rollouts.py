"""Sampling on the server: which questions come, in what order, and what sampling them costs in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from fedsim.errors import FederationError
from fedsim.federation.clients import Federation
from fedsim.models.interfaces import CandidateGroup, Draw
from fedsim.protocols.shared.state import ServerState
from fedsim.sim import streams
from fedsim.sim.devices.cost import Work, embedding_work, generate_work
from fedsim.tasks.questions import Question

_Asked = tuple[Draw, "asyncio.Future[CandidateGroup]"]

FIRST_AGAIN = 10**9
"""Questions that are sampled again are numbered from here, beyond the draws of the stream."""


class QuestionStream:
    """Questions in keyed random order, epoch after epoch, each drawn once per epoch.

    Raises:
        FederationError: there is no question.
    """

    def __init__(self, questions: Sequence[Question], seed: int) -> None:
        if not questions:
            raise FederationError("there is no question to learn from")
        self._questions = questions
        self._seed = seed
        self._order: list[int] = []
        self._num_draws = 0

    def next(self) -> Draw:
        """The next draw of the stream."""
        self._num_draws += 1
        return self.peek(self._num_draws - 1)

    def peek(self, index: int) -> Draw:
        """The draw of this index, without moving on."""
        while len(self._order) <= index:
            epoch = len(self._order) // len(self._questions)
            shuffled = streams.generator(self._seed, "question order", epoch)
            self._order.extend(shuffled.permutation(len(self._questions)).tolist())
        return Draw(index, self._questions[self._order[index]], index // len(self._questions))


class Rollouts:
    """The server's sampler: G candidates for each question of the stream.

    All questions that wait when the accelerator becomes free are sampled as one batch (continuous batching, in its
    simplest form) and embedded in the same pass. The policy version is the one that is live when the batch begins.

    Args:
        block: about how many draws a version will be asked for; so many are sampled ahead at once in reality, or as many as
            its predecessors took. Changes no result.
        anticipate: called with every group that was sampled ahead, to announce the work it will bring.
    """

    def __init__(
        self,
        federation: Federation,
        state: ServerState,
        questions: Sequence[Question],
        block: int,
        anticipate: Callable[[CandidateGroup], None] | None = None,
    ) -> None:
        self._federation = federation
        self._state = state
        self._stream = QuestionStream(questions, state.seed)
        self._block = block
        self._anticipate = anticipate
        self._waiting: asyncio.Queue[_Asked] = asyncio.Queue()
        self._ahead: dict[int, CandidateGroup] = {}
        self._ahead_version = -1
        # How much of the stream the live version and the two before it were asked for.
        self._asked: deque[int] = deque(maxlen=3)
        self._again: deque[Draw] = deque()
        self._num_again = 0

    def again(self, draw: Draw) -> None:
        """Put a question in front of the stream: it is sampled again, as a draw of its own with draws of its own."""
        number = FIRST_AGAIN + self._num_again
        self._num_again += 1
        self._again.append(Draw(number, draw.question, epoch=number))

    async def next(self) -> CandidateGroup:
        """Sample the next question from the live policy."""
        draw = self._again.popleft() if self._again else self._stream.next()
        group: asyncio.Future[CandidateGroup] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((draw, group))
        return await group

    async def serve(self) -> None:
        """Sample whatever waits, batch after batch, for ever."""
        while True:
            batch = [await self._waiting.get()]
            groups: list[CandidateGroup] = []
            await asyncio.sleep(0)  # everyone who asks at this instant joins the batch

            def begin(batch: list[_Asked] = batch, groups: list[CandidateGroup] = groups) -> Work:
                while not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                groups += self._sample([draw for draw, _ in batch])
                return self._work(groups)

            await self._federation.server.compute(begin, "sample", batch[0][0].index)
            for (_, future), group in zip(batch, groups, strict=True):
                if not future.done():
                    future.set_result(group)

    def _sample(self, draws: Sequence[Draw]) -> list[CandidateGroup]:
        policy = self._state.policy
        if self._ahead_version != policy.version:
            self._ahead.clear()
            self._ahead_version = policy.version
            self._asked.append(0)
        self._asked[-1] += sum(draw.index < FIRST_AGAIN for draw in draws)
        missing = [draw for draw in draws if draw.index not in self._ahead]
        if missing:
            wanted = [*missing, *map(self._stream.peek, self._worth_sampling(missing))]
            for group in policy.sample(wanted):
                self._ahead[group.draw.index] = group
                if self._anticipate is not None:
                    self._anticipate(group)
        return [self._ahead[draw.index] for draw in draws]

    def _worth_sampling(self, missing: Sequence[Draw]) -> range:
        """Draws to sample beside those that are missing.

        When a version is new, as many in all as its last two predecessors were asked for; small steps once it is older, since
        the rest may never be needed.
        """
        is_new = all(index >= FIRST_AGAIN for index in self._ahead)
        expected = min(max(list(self._asked)[:-1], default=self._block), self._block * 3 // 2)
        size = expected if is_new else max(8, self._block // 8)
        first = max((draw.index + 1 for draw in missing if draw.index < FIRST_AGAIN), default=0)
        return range(first, first + max(0, size - len(missing)) if first else 0)

    def _work(self, groups: Sequence[CandidateGroup]) -> Work:
        tokens = self._state.tokens
        prompts = [tokens.question(group.draw.question.text) for group in groups]
        answers = [
            [tokens.sampled(candidate.text, candidate.num_tokens) for candidate in group.candidates]
            for group in groups
        ]
        return generate_work(self._state.spec, prompts, answers) + embedding_work(self._state.spec, prompts)
