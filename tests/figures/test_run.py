import re
import shutil
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import RunFolderError
from fedsim.figures.run import report, timeline
from fedsim.figures.run.confidence import confidence_graph, sample_question, write_graphml
from fedsim.figures.run.devices import device_classes
from fedsim.figures.run.learning import learning, running_mean
from fedsim.figures.run.partition import read_partition
from fedsim.figures.run.report import FIGURES
from fedsim.figures.run.timeline import DeviceActivity, activities, device_timeline, gaps, window
from fedsim.figures.run.traffic import traffic
from fedsim.figures.style import byte_scale, save, time_scale
from fedsim.protocols.shared.confidence_graph import ConfidenceGraph
from fedsim.records.log import RecordLog
from fedsim.records.rows import PURPOSES, Compute, Evaluation, Outcome, Presence, Transfer
from fedsim.records.run import load, write_results
from fedsim.records.run_folder import RunFolder, write_json
from fedsim.records.summary import SummaryContext, summarise
from fedsim.tasks.questions import Question
from tests.samples.run import DOMAINS, partition, sample_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return sample_run(tmp_path_factory.mktemp("figures") / "run", num_updates=10)


def run_of(folder, rows):
    log = RecordLog()
    for row in rows:
        log.add(row)
    run_folder = RunFolder.create(folder, "a", 0)
    write_results(run_folder, log, summarise(log, SummaryContext("zero_shot", 0, 0.0, 1.0, "protocol")))
    return load(run_folder.path)


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]


def test_the_report_writes_every_figure_as_png_and_svg_with_an_index(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    written = report.write_report(folder)
    names = {f"{spec.name}.{kind}" for spec in FIGURES for kind in ("png", "svg")}
    names |= {"index.html", "confidence_graph.graphml"}
    assert {path.name for path in written} == names
    assert {path.name for path in (folder / "figures").iterdir()} == names
    index = (folder / "figures" / "index.html").read_text()
    assert all(f'src="{spec.name}.png"' in index for spec in FIGURES)
    assert "0.250 -&gt; 0.380 on " in index
    from PIL import Image

    for spec in FIGURES:
        with Image.open(folder / "figures" / f"{spec.name}.png") as image:
            assert round(image.info["dpi"][0]) == 200
            assert 400 < image.width <= 1440


@pytest.mark.slow
def test_equal_runs_give_equal_files_byte_for_byte_in_another_process_too(run, tmp_path):
    for spec in FIGURES:
        save(spec.draw(run), tmp_path / "here" / spec.name)
    code = (
        "import sys; from pathlib import Path; from fedsim.figures.run.report import FIGURES;"
        "from fedsim.figures.style import save;"
        f"from fedsim.records.run import load; run = load({str(run.folder)!r});"
        f"[save(spec.draw(run), Path({str(tmp_path / 'there')!r}) / spec.name) for spec in FIGURES];"
        "print([m for m in ('torch', 'transformers', 'reasoning_gym') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "figures must not load models"
    here = sorted((tmp_path / "here").iterdir())
    assert len(here) == 2 * len(FIGURES)
    for path in here:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), path.name


def test_every_axis_has_a_label_with_its_unit(run):
    assert [axes.get_xlabel() for axes in learning(run).axes[3:]] == [
        "virtual time (s)", "wire, both directions (KiB)", "paper's account, uplink (KiB)",
    ]  # fmt: skip
    assert [axes.get_xlabel() for axes in traffic(run).axes] == [
        "total (KiB, by fate)", "share by fate (%)", "share by purpose (%)",
    ]  # fmt: skip
    assert device_timeline(run).axes[0].get_xlabel() == "virtual time (s)"


def test_bars_of_both_accounts_are_as_long_as_the_summary_says(run):
    left, *both_shares = traffic(run).axes
    lengths = {round(row): 0.0 for row in range(3)}
    for bar in left.patches:
        lengths[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
    wire, paper = run.summary["bytes"]["wire"], run.summary["bytes"]["paper"]
    expected = [wire["downlink"], wire["uplink"], paper["uplink"]]
    assert [1024 * lengths[row] for row in range(3)] == pytest.approx(expected)
    for shares in both_shares:
        assert sums_of_bars(shares) == pytest.approx([100.0] * 3)


def sums_of_bars(axes):
    totals = dict.fromkeys(range(3), 0.0)
    for bar in axes.patches:
        totals[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
    return list(totals.values())


def test_bytes_of_any_purpose_have_their_part_of_the_bar_and_a_look_of_their_own(tmp_path):
    names = [*PURPOSES, *(f"kind-{number:02d}" for number in range(12))]
    rows = [
        Transfer(
            request_id=0, client_id=0, direction=direction, purpose=purpose, fate="useful", start_at_s=0.0, end_at_s=1.0,
            message_bytes=1, wire_bytes=10 + place, paper_bytes=place * (direction == "up"),
        )
        for place, purpose in enumerate(reversed(names))
        for direction in ("down", "up")
    ]  # fmt: skip
    shares = traffic(run_of(tmp_path / "run", rows)).axes[2]
    assert sums_of_bars(shares) == pytest.approx([100.0] * 3)
    assert [text.get_text() for text in shares.get_legend().get_texts()] == names
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in shares.patches}) == len(names)


def test_totals_that_differ_a_hundredfold_stand_on_a_logarithmic_axis(tmp_path):
    rows = [
        Transfer(
            request_id=0, client_id=0, direction=direction, purpose=purpose, fate="useful", start_at_s=0.0,
            end_at_s=1.0, message_bytes=1, wire_bytes=size, paper_bytes=paper,
        )
        for direction, purpose, size, paper in (("down", "setup", 9_000_000, 0), ("up", "reward", 900, 64))
    ]  # fmt: skip
    figure = traffic(run_of(tmp_path / "run", rows))
    assert figure.axes[0].get_xscale() == "log"
    assert {"8.6 MiB", "900 B", "64 B"} <= set(texts_of(figure))
    save(figure, tmp_path / "traffic")


def test_a_run_in_which_nothing_happened_draws_nothing_and_says_so(tmp_path):
    run = run_of(tmp_path / "run", [])
    assert [spec.draw(run) for spec in FIGURES] == [None] * len(FIGURES)
    written = report.write_report(run.folder)
    assert [path.name for path in written] == ["index.html"]
    assert written[0].read_text().count("Left out") == len(FIGURES)


def evaluation(version, at_s, split, greedy):
    return Evaluation(
        policy_version=version, at_s=at_s, split=split, greedy=greedy, pass_at_1=greedy, pass_at_8=greedy,
        entropy=1.0, kl_to_initial=0.0, num_questions=10,
    )  # fmt: skip


def test_a_single_evaluation_and_both_splits_can_be_drawn(tmp_path):
    one = run_of(tmp_path / "one", [evaluation(0, 0.0, "test", 0.3)])
    save(learning(one), tmp_path / "one-figure")
    assert "mean reward" not in texts_of(learning(one))
    both = run_of(tmp_path / "both", [evaluation(0, 0.0, "validation", 0.3), evaluation(0, 0.0, "test", 0.3)])
    legend = learning(both).legends[0]
    assert len(legend.get_texts()) == 6


def test_extra_sets_of_questions_are_drawn_by_their_names(tmp_path):
    names = ("validation", "test", "never_asked", "reworded")
    rows = [evaluation(version, 5.0 * version, name, 0.3) for version in (0, 1) for name in names]
    drawn = [text.get_text() for text in learning(run_of(tmp_path / "run", rows)).legends[0].get_texts()]
    assert len(drawn) == 8
    assert drawn[6:] == ["greedy, never_asked", "greedy, reworded"]


def test_accuracy_that_nobody_measured_is_not_drawn_as_an_empty_panel(tmp_path):
    nan = float("nan")
    assert learning(run_of(tmp_path / "run", [evaluation(0, 0.0, "test", nan)])) is None


def test_running_mean_of_hand_worked_digits():
    assert running_mean([1.0, 2.0, 6.0, 4.0], 2) == [1.0, 1.5, 4.0, 5.0]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda p: (min(p), max(p))), max_size=8),
    st.integers(1, 30),
)
def test_presence_and_gaps_cover_the_run_once(intervals, until_s):
    inside = [(float(a), float(min(b, until_s))) for a, b in intervals if a < until_s]
    absent = gaps(inside, float(until_s))
    for second in range(until_s):
        middle = second + 0.5
        present = any(a < middle < b for a, b in inside)
        assert present != any(a < middle < b for a, b in absent)


def test_of_a_long_run_the_timeline_looks_at_the_first_stretch(tmp_path, monkeypatch):
    run = sample_run(tmp_path / "run", num_updates=12)
    monkeypatch.setattr(timeline, "_MAX_REQUESTS", 30)
    last_at_s = run.outcomes["ended_at_s"][29]
    devices = activities(run)
    assert sum(len(device.sent_at_s) for device in devices) == 30
    starts_s = [start for device in devices for lane in device.lanes.values() for start, _ in lane]
    assert max(starts_s) <= last_at_s < run.outcomes["ended_at_s"].max()
    assert "of the run's" in device_timeline(run).axes[0].get_title(loc="left")


def test_the_timeline_shows_exactly_what_the_records_say(tmp_path):
    common = {"request_id": 0, "client_id": 0}
    rows = [
        Transfer(
            **common, direction="down", purpose="question", fate="cut", start_at_s=1.0, end_at_s=2.0,
            message_bytes=1, wire_bytes=9, paper_bytes=0,
        ),
        Compute(
            **common, kind="question", start_at_s=3.0, end_at_s=5.0, flop=1.0, memory_bytes=1.0, energy_j=1.0, cut=True
        ),
        Compute(
            request_id=0, client_id=-1, kind="sample", start_at_s=0.0, end_at_s=1.0, flop=1.0, memory_bytes=1.0,
            energy_j=1.0, cut=False,
        ),
        Outcome(
            **common, device_class="phone", purpose="question", subject=0, sent_at_s=1.0, ended_at_s=5.0,
            status="dropped", phase="compute", cause="device left",
        ),
        Presence(client_id=0, device_class="phone", start_at_s=0.5, end_at_s=5.0),
        Presence(client_id=1, device_class="laptop", start_at_s=0.0, end_at_s=8.0),
    ]  # fmt: skip
    run = run_of(tmp_path / "run", rows)
    server, phone, laptop = activities(run)
    assert server.lanes == {"compute": [(0.0, 1.0)]}
    assert phone.lanes == {"down": [(1.0, 2.0)], "compute": [(3.0, 5.0)], "wait": [(2.0, 3.0)]}
    assert (phone.off, phone.lost_at_s) == ([(0.0, 0.5), (5.0, 8.0)], [5.0])
    assert (laptop.off, laptop.lanes) == ([], {})
    figure = device_timeline(run)
    save(figure, tmp_path / "timeline")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "server", "0  phone", "1  laptop",
    ]  # fmt: skip
    assert {"download", "compute", "upload", "idle", "off", "request lost"} <= set(texts_of(figure))


def test_a_device_that_was_away_at_the_end_stays_away_while_the_last_requests_are_drained(tmp_path):
    rows = [
        Presence(client_id=0, device_class="phone", start_at_s=0.0, end_at_s=8.0),
        Presence(client_id=1, device_class="phone", start_at_s=0.0, end_at_s=6.0),
        Outcome(
            request_id=0, client_id=0, device_class="phone", purpose="question", subject=0, sent_at_s=1.0,
            ended_at_s=11.0, status="late", phase="done", cause="",
        ),
    ]  # fmt: skip
    _, busy, away = activities(run_of(tmp_path / "run", rows))
    assert (busy.off, away.off) == ([], [(6.0, 11.0)])


def test_a_dense_run_is_drawn_through_a_window_with_few_computations_where_something_happens():
    busy = DeviceActivity(0, "phone", sent_at_s=[0.0])
    busy.lanes["compute"] = [(float(at), at + 1.0) for at in range(1024)]
    busy.lost_at_s = [700.0]
    start_s, end_s = window([busy], 1024.0)
    assert end_s - start_s == 8.0
    assert start_s <= 700.0 < end_s
    assert window([DeviceActivity(0, "phone", sent_at_s=[3.0])], 10.0) == (0.0, 10.0)


def test_devices_that_were_done_early_are_drawn_until_they_were_done():
    early = DeviceActivity(0, "phone", sent_at_s=[0.0])
    early.lanes["compute"] = [(1.0, 3.0)]
    assert window([early], 1000.0) == (0.0, 3.0)
    assert window([early], 5.0) == (0.0, 5.0)


def test_a_short_window_late_in_a_long_run_is_labelled_in_seconds(tmp_path):
    rows = [Presence(client_id=0, device_class="phone", start_at_s=0.0, end_at_s=4096.0)]
    for at in range(2048):
        rows.append(
            Outcome(
                request_id=at,
                client_id=0,
                device_class="phone",
                purpose="question",
                subject=0,
                sent_at_s=2.0 * at,
                ended_at_s=2.0 * at + 1,
                status="dropped" if at == 1900 else "ok",
                phase="done",
                cause="",
            )
        )
        rows.append(
            Compute(
                request_id=at, client_id=0, kind="score", start_at_s=2.0 * at, end_at_s=2.0 * at + 1, flop=1.0,
                memory_bytes=1.0, energy_j=1.0, cut=False,
            )
        )  # fmt: skip
    axes = device_timeline(run_of(tmp_path / "run", rows)).axes[0]
    assert axes.get_xlabel() == "virtual time (s)"
    low, high = axes.get_xlim()
    assert high - low < 60 and low <= 3800 <= high


def test_of_many_devices_every_class_is_shown_and_the_title_says_how_many(tmp_path):
    rows = []
    for client_id in range(100):
        rows.append(
            Presence(
                client_id=client_id,
                device_class="edge" if client_id == 99 else "phone",
                start_at_s=0.0,
                end_at_s=9.0,
            )
        )
        rows.append(
            Outcome(
                request_id=client_id, client_id=client_id, device_class="edge" if client_id == 99 else "phone",
                purpose="question", subject=0, sent_at_s=0.0, ended_at_s=9.0, status="ok", phase="done", cause="",
            )
        )  # fmt: skip
    figure = device_timeline(run_of(tmp_path / "run", rows))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 16
    assert "99  edge" in labels
    assert figure.axes[0].get_title(loc="left").startswith("16 of 100 devices, the whole run of ")


def test_competence_is_the_share_of_the_nearest_exemplars_answered_correctly():
    graph = nx.Graph()
    graph.add_node("q5", kind="question")
    for exemplar, cosine in ((0, 0.5), (1, 0.9)):
        graph.add_node(f"e{exemplar}", kind="exemplar")
        graph.add_edge("q5", f"e{exemplar}", weight=cosine)
    graph.add_node("e2", kind="exemplar")
    for client, bits in enumerate(((1, 1, 0), (1, 0, 1), (0, 0, 1))):
        graph.add_node(f"c{client}", kind="client")
        for exemplar, bit in enumerate(bits):
            graph.add_edge(f"e{exemplar}", f"c{client}", weight=float(bit))
    graph.add_node("c3", kind="client")
    sample = sample_question(graph, num_experts=1)
    assert sample.exemplars == (("e1", 0.9), ("e0", 0.5))
    assert sample.competence == {"c0": 1.0, "c1": 0.5, "c2": 0.0}
    assert sample.best == {"c0"}
    assert sample_question(graph, num_experts=2).best == {"c0", "c1"}
    assert sample_question(nx.Graph(), 2) is None


def test_the_graph_that_a_run_exports_is_the_graph_that_is_drawn(tmp_path):
    embeddings = np.eye(4)
    bits = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [np.nan] * 4])
    exemplars = [Question(index, "gcd", f"exemplar {index}", "1") for index in range(4)]
    question = Question(7, "gcd", "What is the gcd of $12 and $18?", "6")
    known = ConfidenceGraph(embeddings, bits)
    run = run_of(tmp_path / "run", [])
    near = np.array([[0.9, 0.8, 0.1, 0.0]])
    write_json(run.folder / "confidence_graph.json", known.sample([question], near, 2, exemplars))
    figure = confidence_graph(run)
    save(figure, tmp_path / "graph")
    texts = texts_of(figure)
    assert "1.00   client 0" in texts
    assert "0.00   client 1" in texts
    assert "not probed   client 2" in texts


HOSTILE = "</node><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>&a;\x00\x1b\uffff"


def test_the_graph_stands_beside_its_figure_as_graphml_in_which_hostile_text_stays_text(tmp_path):
    run = run_of(tmp_path / "run", [])
    assert write_graphml(run) == []
    known = ConfidenceGraph(np.eye(4), np.array([[1.0, 1.0, 0.0, 0.0], [np.nan] * 4]))
    tables = known.sample([Question(5, HOSTILE, HOSTILE, "2")], np.array([[0.9, 0.8, 0.1, 0.0]]), 2)
    write_json(run.folder / "confidence_graph.json", tables)
    (path,) = write_graphml(run)
    assert path == run.folder / "figures" / "confidence_graph.graphml"
    assert re.search(r"<!(DOCTYPE|ENTITY)", path.read_text()) is None
    again = nx.read_graphml(path)
    assert again.nodes["q5"]["text"] == HOSTILE[:-3] + "???"
    assert again.nodes["c1"]["probed"] is False
    assert {frozenset(edge) for edge in again.edges} == {
        frozenset((edge["source"], edge["target"])) for edge in tables["edges"]
    }
    (run.folder / "confidence_graph.json").unlink()
    assert write_graphml(run) == [] and not path.exists()


def test_the_graph_of_a_run_of_an_earlier_version_is_read_where_it_stands_as_graphml(tmp_path):
    run = run_of(tmp_path / "run", [])
    known = ConfidenceGraph(np.eye(4), np.array([[1.0, 1.0, 0.0, 0.0], [np.nan] * 4]))
    tables = known.sample([Question(5, "x", "1 + 1", "2")], np.array([[0.9, 0.8, 0.1, 0.0]]), 2)
    write_json(run.folder / "confidence_graph.json", tables)
    (path,) = write_graphml(run)
    (run.folder / "confidence_graph.json").unlink()
    drawn = path.read_text()
    path.rename(run.folder / "confidence_graph.graphml")
    assert write_graphml(run) == [path] and nx.utils.graphs_equal(
        nx.read_graphml(path), nx.parse_graphml(drawn)
    )


def test_a_damaged_graph_is_refused(tmp_path):
    run = run_of(tmp_path / "run", [])
    for text in ("", "[]", '{"nodes": [{}], "edges": []}', '{"nodes": [1], "edges": []}'):
        (run.folder / "confidence_graph.json").write_text(text)
        with pytest.raises(RunFolderError, match="holds no graph"):
            confidence_graph(run)


def test_the_partition_is_read_from_csv_or_json_and_refused_when_it_is_neither(run, tmp_path):
    domains, counts = read_partition(run.folder)
    assert domains == list(DOMAINS)
    assert counts.tolist() == partition()
    (tmp_path / "partition.json").write_text('{"domains": ["a", "b"], "counts": [[1, 2], [3, 4]]}')
    assert read_partition(tmp_path)[1].tolist() == [[1, 2], [3, 4]]
    (tmp_path / "partition.csv").write_text("client_id,a,b\n0,1,x\n")
    with pytest.raises(RunFolderError, match="not a table"):
        read_partition(tmp_path)


def test_a_client_that_never_came_online_is_known_from_the_clients_file(tmp_path):
    run = run_of(
        tmp_path / "run", [Presence(client_id=0, device_class="phone", start_at_s=0.0, end_at_s=1.0)]
    )
    assert device_classes(run) == {0: "phone"}
    (run.folder / "clients.json").write_text('[{"client_id": 1, "device_class": "laptop"}]')
    assert device_classes(run) == {0: "phone", 1: "laptop"}
    (run.folder / "clients.json").write_text("{}x")
    with pytest.raises(RunFolderError, match="not a list of clients"):
        device_classes(run)


def test_scales_are_read_easily():
    assert byte_scale(1023) == (1.0, "B")
    assert byte_scale(3 * 2**20) == (2**20, "MiB")
    assert time_scale(179) == (1.0, "s")
    assert time_scale(180) == (60.0, "min")
    assert time_scale(4 * 86400) == (86400.0, "d")
