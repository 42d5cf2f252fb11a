import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from fedsim.errors import RunFolderError
from fedsim.records.log import RecordLog
from fedsim.records.metrics import Metrics
from fedsim.records.parquet import frame
from fedsim.records.rows import RECORD_TYPES, Evaluation, Outcome, Ratio, Transfer, Update
from fedsim.records.run import load, write_results
from fedsim.records.run_folder import RunFolder
from tests.samples.run import DOMAINS, partition, sample_log, sample_run

ROOT = Path(__file__).resolve().parents[2]
KINDS = (
    "transfers",
    "computes",
    "outcomes",
    "rewards",
    "groups",
    "updates",
    "evaluations",
    "presence",
    "members",
    "faults",
    "ratios",
)


@pytest.fixture
def run(tmp_path):
    return sample_run(tmp_path / "run", num_updates=4)


def test_what_was_logged_is_what_is_loaded(run):
    log = sample_log(num_updates=4)
    for kind, name in zip(RECORD_TYPES, KINDS, strict=True):
        expected = [{field: getattr(row, field) for field in kind.__struct_fields__} for row in log.of(kind)]
        loaded = run.records[name].to_dicts()
        for row in loaded:
            if "rewards" in row:
                row["rewards"] = tuple(row["rewards"])
        assert loaded == expected, name
        assert getattr(run, name).equals(run.records[name])
    assert run.summary["records_sha256"] == log.sha256()
    assert run.manifest["status"] == "finished"
    assert not list(run.folder.rglob("*.tmp"))


def test_an_empty_run_has_typed_empty_tables(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "a", 0)
    write_results(folder, RecordLog(), {})
    run = load(folder.path)
    assert run.metrics.is_empty()
    assert run.rewards.schema["rewards"] == pl.List(pl.Float64)
    for kind, name in zip(RECORD_TYPES, KINDS, strict=True):
        assert run.records[name].is_empty()
        assert run.records[name].schema == frame(kind, sample_log(num_updates=1).of(kind)).schema


def test_folders_that_are_not_runs_are_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "manifest.json").write_text("[1]")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text('{"name": "some web app"}')
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text('{"format_ver')
    (tmp_path / "file").write_text("")
    for name, why in (
        ("empty", "is not a run folder"),
        ("absent", "is not a run folder"),
        ("file", "is not a run folder"),
        ("list", "not written by fedsim"),
        ("foreign", "not written by fedsim"),
        ("torn", "damaged or cut short"),
    ):
        with pytest.raises(RunFolderError, match=why) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_an_older_format_is_refused_with_what_to_do(run):
    manifest = json.loads((run.folder / "manifest.json").read_text())
    (run.folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 1}))
    with pytest.raises(RunFolderError, match=r"run format 1, which .* run its scenario again"):
        load(run.folder)


def test_a_newer_format_is_refused(run):
    manifest = json.loads((run.folder / "manifest.json").read_text())
    (run.folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(RunFolderError, match="run format 99, newer than 3"):
        load(run.folder)


@pytest.mark.parametrize("name", ["summary.json", "metrics.parquet", "records/rewards.parquet"])
def test_a_missing_file_is_named_with_the_reason(run, name):
    (run.folder / name).unlink()
    with pytest.raises(RunFolderError, match=f"{name} is missing; the folder is not whole"):
        load(run.folder)


def test_a_run_that_still_goes_on_or_failed_says_so(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "a", 0)
    with pytest.raises(RunFolderError, match="the run has not ended yet"):
        load(folder.path)
    folder.finish("failed")
    with pytest.raises(RunFolderError, match="the run failed before writing it"):
        load(folder.path)


@pytest.mark.parametrize("name", ["summary.json", "metrics.parquet", "records/rewards.parquet"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_a_truncated_file_is_an_error_never_fewer_rows(run, name, kept):
    path = run.folder / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(RunFolderError, match="damaged or cut short") as caught:
        load(run.folder)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_without_a_column_is_from_another_version(run):
    path = run.folder / "records" / "updates.parquet"
    pl.read_parquet(path).drop("loss").write_parquet(path)
    with pytest.raises(RunFolderError, match="lacks the column loss"):
        load(run.folder)


def test_the_partition_is_written_as_a_table_of_clients_by_domains(run):
    head, *rows = (run.folder / "partition.csv").read_text().splitlines()
    assert head == "client_id," + ",".join(DOMAINS)
    assert [[int(cell) for cell in row.split(",")][1:] for row in rows] == partition()


def small_log():
    """Two requests and an update at 4 s: 100 B down by 1 s, 40 B up by 3 s, 100 B down that end at 6 s."""
    log = RecordLog()
    for request_id, end_at_s, direction, size in (
        (0, 1.0, "down", 100),
        (0, 3.0, "up", 40),
        (1, 6.0, "down", 100),
    ):
        log.add(
            Transfer(
                request_id=request_id, client_id=request_id, direction=direction, purpose="question",
                fate="useful", start_at_s=0.0, end_at_s=end_at_s, message_bytes=1, wire_bytes=size,
                paper_bytes=16 if direction == "up" else 0,
            )
        )  # fmt: skip
    for request_id, ended_at_s, status in ((0, 3.0, "ok"), (1, 6.0, "dropped")):
        log.add(
            Outcome(
                request_id=request_id, client_id=request_id, device_class="phone", purpose="question",
                subject=0, sent_at_s=0.5, ended_at_s=ended_at_s, status=status, phase="done", cause="",
            )
        )  # fmt: skip
    evaluation = {
        "split": "test", "greedy": 0.5, "pass_at_1": float("nan"), "pass_at_8": 0.7, "entropy": 1.0,
        "kl_to_initial": 0.0, "num_questions": 10,
    }  # fmt: skip
    log.add(Evaluation(policy_version=1, at_s=4.0, **evaluation))
    log.add(
        Update(
            policy_version=1, at_s=4.0, num_groups=1, num_candidates=8, staleness_mean=0.0, staleness_max=0,
            loss=0.1, entropy=1.0, clip_fraction=0.0, grad_norm=1.0, reward_mean=0.25, zero_variance_share=0.0,
        )
    )  # fmt: skip
    log.add(Evaluation(policy_version=0, at_s=0.0, **evaluation))
    log.add(Evaluation(policy_version=1, at_s=6.0, **evaluation))
    return log


def test_metrics_count_what_had_ended_by_each_instant():
    log = small_log()
    metrics = Metrics(log)
    for chunk in log.chunks():
        metrics.add(chunk)
    table = metrics.frame()
    assert table["at_s"].to_list() == [0.0, 4.0, 4.0, 6.0]
    assert table["event"].to_list() == ["evaluation", "update", "evaluation", "evaluation"]
    assert table["wire_down_bytes"].to_list() == [0, 100, 100, 200]
    assert table["wire_up_bytes"].to_list() == [0, 40, 40, 40]
    assert table["paper_up_bytes"].to_list() == [0, 16, 16, 16]
    assert table["in_flight"].to_list() == [0, 1, 1, 0]
    assert table["requests_ended"].to_list() == [0, 1, 1, 2]
    assert table["dropped"].to_list() == [0, 0, 0, 1]
    assert table["reward_mean"].to_list() == [None, 0.25, None, None]
    assert table["greedy"].to_list() == [0.5, None, 0.5, 0.5]
    assert table["pass_at_1"].to_list() == [None] * 4


def test_the_last_metrics_row_holds_the_totals_of_the_summary(run):
    last = run.metrics.row(-1, named=True)
    assert last["wire_up_bytes"] == run.summary["bytes"]["wire"]["uplink"]
    assert last["wire_down_bytes"] == run.summary["bytes"]["wire"]["downlink"]
    assert last["requests_ended"] == run.summary["requests"]["total"]
    for column in ("wire_up_bytes", "wire_down_bytes", "paper_up_bytes", "requests_ended", "at_s"):
        assert run.metrics[column].is_sorted()


def test_reading_results_imports_no_model_library(run):
    code = (
        f"import sys; import fedsim.records.run as r; r.load({str(run.folder)!r});"
        "print([m for m in ('torch', 'transformers', 'reasoning_gym', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ratios_by_staleness_come_back_and_an_older_run_of_this_format_has_none(tmp_path):
    log = RecordLog()
    keys = {
        "num_tokens": 90, "mean_ratio": 1.01, "effective_share": 0.93, "truncated_share": 0.02, "clip_fraction": 0.1,
        "divergence": 0.004,
    }  # fmt: skip
    log.add(Ratio(policy_version=3, staleness=2, **keys))
    folder = RunFolder.create(tmp_path / "run", "ratios", 0)
    write_results(folder, log, {})
    folder.finish("finished")
    assert load(folder.path).ratios.row(0, named=True) == {"policy_version": 3, "staleness": 2, **keys}
    (folder.path / "records" / "ratios.parquet").unlink()
    older = load(folder.path).ratios
    assert older.height == 0 and older.columns == ["policy_version", "staleness", *keys]
