"""A hand-made run: a log with every kind of record, and the folder that holds it.

Not a simulation: instants follow simple rules, so that the books balance by construction. It stands in for a
real run wherever the test is about reading results.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from fedsim.records.log import RecordLog
from fedsim.records.rows import Compute, Evaluation, Group, Outcome, Presence, Reward, Transfer, Update
from fedsim.records.run import Run, load, write_results
from fedsim.records.run_folder import CONFIDENCE_GRAPH, RunFolder
from fedsim.records.summary import SummaryContext, summarise
from fedsim.sim import streams

CLASSES = ("phone", "phone", "phone", "phone", "laptop", "laptop", "laptop", "edge_server")
DOMAINS = ("chain_sum", "products", "gcd", "simple_equations", "spell_backward")
SPEED = {"phone": 0.35, "laptop": 0.9, "edge_server": 3.0}
GROUP_SIZE = 8


def sample_log(num_updates: int = 30, groups_per_update: int = 6, seed: int = 0) -> RecordLog:
    """A log in which eight devices score candidates; some are late, some are cut."""
    log = RecordLog()
    free_at_s = dict.fromkeys(range(len(CLASSES)), 0.0)
    rows: list[tuple[float, int, object]] = []
    log.add(_evaluation(0, 0.0, 0.25))
    at_s = 0.0
    request_id = 0
    for version in range(1, num_updates + 1):
        ended = []
        for slot in range(groups_per_update):
            draw = (version - 1) * groups_per_update + slot
            sent_at_s = at_s + 0.2 * slot
            for expert in _experts(seed, draw):
                request, end_s = _request(log, seed, request_id, expert, draw, sent_at_s, free_at_s)
                rows += request
                ended.append(end_s)
                request_id += 1
            rows.append((sent_at_s + 4.0, 2, _group(seed, version, draw, sent_at_s)))
        at_s = max(ended) + 0.5
        log.add(
            Compute(
                request_id=version,
                client_id=-1,
                kind="update",
                start_at_s=at_s - 0.4,
                end_at_s=at_s,
                flop=2e12,
                memory_bytes=1e9,
                energy_j=80.0,
                cut=False,
            )
        )
        rows.append((at_s, 3, _update(seed, version, at_s, groups_per_update, num_updates)))
        if version % 10 == 0:
            rows.append((at_s, 4, _evaluation(version, at_s, 0.25 + 0.13 * version / num_updates)))
    for _, _, row in sorted(rows, key=lambda entry: entry[:2]):
        log.add(row)
    for client_id, device_class in enumerate(CLASSES):
        for start_at_s, end_at_s in _intervals(client_id, at_s):
            log.add(
                Presence(
                    client_id=client_id, device_class=device_class, start_at_s=start_at_s, end_at_s=end_at_s
                )
            )
    return log


def carried_bytes(log: RecordLog) -> dict[str, int]:
    """What links would have carried."""
    totals: dict[str, int] = defaultdict(int)
    for row in log.of(Transfer):
        totals[row.direction] += row.wire_bytes
    return dict(totals)


def sample_run(folder: Path, **shape: int) -> Run:
    """Write a whole run folder and load it."""
    run_folder = RunFolder.create(folder, "sample", 0)
    log = sample_log(**shape)
    virtual_s = max((row.at_s for row in log.of(Update)), default=0.0)
    correct = {row.draw: [index % 2 == 0 for index in range(GROUP_SIZE)] for row in log.of(Group)}
    context = SummaryContext("fedgrpo", 0, virtual_s, 1.0, "updates", {"gcd": 0.3}, {"gcd": 0.6}, correct)
    write_results(run_folder, log, summarise(log, context))
    run_folder.write_partition(DOMAINS, partition())
    run_folder.write_json(CONFIDENCE_GRAPH, confidence_graph())
    run_folder.finish("finished", scenario={"name": "sample"})
    return load(folder)


def partition() -> list[list[int]]:
    """Private rows per client and domain, very uneven, one client nearly empty."""
    return [
        [
            int(1200 * streams.uniform("rows", client, domain) ** 6) if client != 3 else int(domain == 2)
            for domain in range(len(DOMAINS))
        ]
        for client in range(len(CLASSES))
    ]


def confidence_graph() -> dict[str, list[dict[str, object]]]:
    """Three questions, twenty exemplars per domain, eight clients, in the form that a run writes."""
    nodes: list[dict[str, object]] = [
        {"id": f"c{client}", "kind": "client", "probed": True} for client in range(len(CLASSES))
    ]
    edges: list[dict[str, object]] = []
    used = set()
    for question in range(3):
        text = "What is the greatest common divisor of 12 and $18?"
        nodes.append({"id": f"q{question}", "kind": "question", "domain": DOMAINS[question], "text": text})
        near = [
            exemplar
            for exemplar in range(20 * len(DOMAINS))
            if exemplar % len(DOMAINS) == question or streams.uniform("near", question, exemplar) < 0.06
        ]
        used.update(near[:20])
        for exemplar in near[:20]:
            cosine = 0.6 + 0.4 * streams.uniform("similar", question, exemplar)
            edges.append(
                {"source": f"q{question}", "target": f"e{exemplar}", "kind": "near", "weight": cosine}
            )
    for exemplar in sorted(used):
        domain = exemplar % len(DOMAINS)
        nodes.append({"id": f"e{exemplar}", "kind": "exemplar", "domain": DOMAINS[domain], "text": "?"})
        for client in range(len(CLASSES)):
            skill = 0.9 if client % len(DOMAINS) == domain else 0.15
            right = float(streams.uniform("skill", exemplar, client) < skill)
            edges.append(
                {"source": f"e{exemplar}", "target": f"c{client}", "kind": "answered", "weight": right}
            )
    return {"nodes": nodes, "edges": edges}


def _experts(seed: int, draw: int) -> list[int]:
    order = sorted(range(len(CLASSES)), key=lambda client: streams.uniform(seed, "expert", draw, client))
    return order[:2]


def _request(
    log: RecordLog, seed: int, request_id: int, client_id: int, draw: int, sent_at_s: float, free_at_s: dict
) -> tuple[list[tuple[float, int, object]], float]:
    """One request's rows: transfers, a computation, perhaps a reward, and its outcome."""
    chance = streams.uniform(seed, "fate", request_id)
    status, fate = (
        ("ok", "useful") if chance < 0.86 else ("late", "late") if chance < 0.93 else ("cut", "cut")
    )
    device_class = CLASSES[client_id]
    speed = SPEED[device_class]
    down_end_s = sent_at_s + 0.4 / speed * (0.5 + streams.uniform(seed, "down", request_id))
    start_s = max(down_end_s + 0.02, free_at_s[client_id])
    end_s = start_s + 0.8 / speed * (0.5 + streams.uniform(seed, "compute", request_id))
    free_at_s[client_id] = end_s
    up_s = 0.15 / speed
    up_end_s = end_s + (up_s if status != "cut" else 0.5 * up_s)
    common = {"request_id": request_id, "client_id": client_id}
    rows: list[tuple[float, int, object]] = []
    down_bytes = 620 + draw % 40
    up_bytes = 230 if status != "cut" else 115
    for direction, start, end, size in (
        ("down", sent_at_s, down_end_s, down_bytes),
        ("up", end_s, up_end_s, up_bytes),
    ):
        purpose = "question" if direction == "down" else "reward"
        paper = 8 * GROUP_SIZE if direction == "up" and status != "cut" else 0
        row = Transfer(
            **common,
            direction=direction,
            purpose=purpose,
            fate=fate,
            start_at_s=start,
            end_at_s=end,
            message_bytes=size - 80,
            wire_bytes=size,
            paper_bytes=paper,
        )
        rows.append((up_end_s, 0, row))
    rows.append(
        (
            end_s,
            0,
            Compute(
                **common,
                kind="question",
                start_at_s=start_s,
                end_at_s=end_s,
                flop=3e9,
                memory_bytes=2e8,
                energy_j=4.0 * (end_s - start_s),
                cut=False,
            ),
        )
    )
    if status != "cut":
        scores = tuple(
            0.1 * (index % 2 == 0) + streams.uniform(seed, "score", request_id, index)
            for index in range(GROUP_SIZE)
        )
        rows.append(
            (
                up_end_s,
                1,
                Reward(
                    **common,
                    draw=draw,
                    question_id=1000 + draw,
                    evaluator="likelihood",
                    rewards=scores,
                    at_s=up_end_s,
                ),
            )
        )
    outcome = Outcome(
        **common,
        device_class=device_class,
        purpose="question",
        subject=draw,
        sent_at_s=sent_at_s,
        ended_at_s=up_end_s,
        status=status,
        phase="up" if status == "cut" else "done",
        cause="device left" if status == "cut" else "",
        question_id=1000 + draw,
    )
    rows.append((up_end_s, 1, outcome))
    return rows, up_end_s


def _group(seed: int, version: int, draw: int, sent_at_s: float) -> Group:
    return Group(
        draw=draw,
        question_id=1000 + draw,
        domain=DOMAINS[draw % len(DOMAINS)],
        policy_version=version - 1,
        dispatched_at_s=sent_at_s,
        completed_at_s=sent_at_s + 4.0,
        num_experts=2,
        num_answered=2,
        reward_mean=0.4,
        reward_std=0.2,
        zero_variance=draw % 5 == 0,
        correct=0.5,
        fate="trained",
    )


def _update(seed: int, version: int, at_s: float, num_groups: int, num_updates: int) -> Update:
    noise = 0.04 * streams.normal(seed, "reward", version)
    return Update(
        policy_version=version,
        at_s=at_s,
        num_groups=num_groups,
        num_candidates=num_groups * GROUP_SIZE,
        staleness_mean=0.5,
        staleness_max=1,
        loss=-0.01,
        entropy=1.2 - 0.01 * version,
        clip_fraction=0.02,
        grad_norm=0.3,
        reward_mean=0.35 + 0.2 * version / num_updates + noise,
        zero_variance_share=0.2,
    )


def _evaluation(version: int, at_s: float, greedy: float) -> Evaluation:
    return Evaluation(
        policy_version=version,
        at_s=at_s,
        split="test",
        greedy=greedy,
        pass_at_1=greedy - 0.04,
        pass_at_8=greedy + 0.2,
        entropy=1.2 - 0.01 * version,
        kl_to_initial=0.001 * version,
        num_questions=2000,
    )


def _intervals(client_id: int, until_s: float) -> list[tuple[float, float]]:
    if client_id != 2:
        return [(0.0, until_s)]
    return [(0.0, 0.3 * until_s), (0.4 * until_s, until_s)]
