"""A run that can teach nothing says so."""

from fedsim.models.interfaces import Candidate, CandidateGroup, Draw
from fedsim.protocols.shared.monitor import Learnability, same_models
from fedsim.tasks.questions import Question


def group(*cut):
    question = Question(0, "sums", "1 + 1", "2")
    return CandidateGroup(Draw(0, question), 0, tuple(Candidate("2", 1, truncated) for truncated in cut))


def test_a_run_whose_candidates_were_all_cut_off_says_so():
    seen = Learnability()
    seen.group(group(True, True), False, 0.0)
    assert "all candidates of all 1 groups were cut off at protocol.max_new_tokens" in seen.warnings()[0]
    assert seen.cut_off_share == 1.0
    seen.group(group(True, False), True, 0.5)
    assert not seen.warnings() and seen.cut_off_share == 0.5


def test_a_run_in_which_no_two_rewards_differ_says_so():
    seen = Learnability()
    for spread in (0.0, 0.0):
        seen.group(group(False, False), True, spread)
    assert seen.warnings() == [
        "in none of 2 scored groups did two rewards differ, so no advantage was anything but zero"
    ]
    seen.group(group(False, False), True, 0.1)
    assert not seen.warnings()


def test_groups_without_a_reward_say_nothing_about_rewards():
    seen = Learnability()
    seen.group(group(False, False), False, 0.0)
    assert not seen.warnings() and not Learnability().warnings()


def test_clients_with_one_model_are_told_from_clients_with_their_own():
    assert same_models({"server": "a", "client-0": "b", "client-1": "b"})[0].startswith(
        "all 2 clients have the same model"
    )
    assert not same_models({"server": "a", "client-0": "b", "client-1": "c"})
    assert not same_models({"server": "a", "client-0": "b"}) and not same_models({})
