"""The run directory: its records and their JSON say the same, and nothing foreign is taken for a run."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_utils import settings as mtf_settings
from mtf_utils.fastpath import build
from mtf_utils.rundir import (
    CONTRACT,
    ENV_ATTEMPT,
    ENV_RUN_DIR,
    Ask,
    Attempt,
    FinishReceipt,
    GoalFile,
    Outcome,
    Record,
    RunDirectory,
    RunDirectoryError,
    RunResultFile,
    StartReceipt,
    SweepDirectory,
    SweepFile,
    current_run,
    is_safe_name,
    now,
    read_metrics,
)
from mtf_utils.settings import field_types

SCHEMAS = [contract.schema for contract in CONTRACT if contract.schema]
EMPTIED = [b"", b"\0" * 100]

# As bash and later readers see them: the files' keys and values are a promise to more than this package.
FILES: dict[type[Record], dict[str, Any]] = {
    StartReceipt: {
        "version": 1,
        "attempt": 2,
        "token": "k3f9",
        "restart": 1,
        "host": "node17",
        "pid": 4711,
        "job_id": "123_4",
        "started_at": "2026-01-31T23:59:59Z",
    },
    FinishReceipt: {
        "version": 1,
        "attempt": 2,
        "outcome": "do-not-requeue",
        "exit_status": 76,
        "reason": "no progress in 3 attempts",
        "limit": "without_progress",
        "finished_at": "2026-02-01T00:00:00Z",
    },
    Ask: {
        "version": 1,
        "attempt": 4,
        "by": "ann@login1",
        "how": "asked for by name",
        "asked_at": "2026-02-01T08:00:00Z",
        "code_before": None,
        "code_after": None,
    },
    GoalFile: {"version": 1, "epochs": 4, "total_steps": 80},
    RunResultFile: {
        "version": 1,
        "epoch": 3,
        "global_step": 1200,
        "metrics": {"val_loss": 0.25, "val_accuracy": None},
        "best": {"metric": "val_loss", "value": 0.2, "epoch": 2, "global_step": 800},
        "checkpoint": "checkpoints/step-1200",
        "seed": 7,
        "finished_at": "2026-02-01T00:00:00Z",
    },
    SweepFile: {
        "version": 1,
        "name": "digits",
        "base": {"model": {"name": "cnn"}},
        "grids": [{"name": "lr", "parameters": {"training.learning_rate": [0.1, 0.01]}}],
        "naming": "hash_based",
        "command": ["{python}", "train.py", "--config", "{config}"],
        "runs": [{"name": "a", "identity": "0f", "grid": "lr", "parameters": {"training.learning_rate": 0.1}}],
        "code": {"isolated": False},
        "versions": {"python": "3.11.7"},
        "created_at": "2026-01-31T23:59:59Z",
    },
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)


def values_of(annotation: Any, minimum: int | None = None) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return json_values
    if origin is types.UnionType:
        return st.one_of([values_of(argument, minimum) for argument in arguments])
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(st.text(), values_of(arguments[1]), max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return st.sampled_from(annotation)
    if annotation is int:
        return st.integers(min_value=minimum)
    if annotation is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    return {str: st.text(), type(None): st.none()}[annotation]


def records_of(schema: type[Record]) -> st.SearchStrategy[Record]:
    annotations = field_types(schema)
    known = {f.name: values_of(annotations[f.name], f.metadata.get("minimum")) for f in dataclasses.fields(schema)}
    return st.builds(schema, **(known | {"version": st.just(schema.version)}))


@pytest.mark.parametrize("schema", SCHEMAS)
@given(data=st.data())
def test_a_record_comes_back_from_its_file(
    schema: type[Record], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"{schema.__name__}.json"
    record = data.draw(records_of(schema))
    record.write(path)
    assert schema.read(path) == record
    assert list(json.loads(path.read_bytes())) == [field.name for field in dataclasses.fields(schema)]


def test_every_schema_has_its_file_here() -> None:
    assert set(FILES) == set(SCHEMAS)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_comes_back_from_its_record(schema: type[Record], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(FILES[schema]))
    record = schema.read(path)
    assert record is not None
    assert record.to_dict() == FILES[schema]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_contract_and_the_schema_name_the_same_version(schema: type[Record]) -> None:
    (contract,) = [contract for contract in CONTRACT if contract.schema is schema]
    assert contract.version == schema.version == FILES[schema]["version"]
    assert all(field.metadata["doc"].endswith(".") for field in dataclasses.fields(schema))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_later_minor_release_may_add_keys(schema: type[Record], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(FILES[schema] | {"added_later": [1]}))
    assert schema.read(path) == schema.from_dict(FILES[schema])


@pytest.mark.parametrize("schema", SCHEMAS)
def test_another_version_is_refused_with_the_remedy(schema: type[Record], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(FILES[schema] | {"version": 2, "shape": "unknown"}))
    with pytest.raises(RunDirectoryError, match=r"file\.json: .*version 2.*knows up to 1; update mtf-utils"):
        schema.read(path)
    path.write_text(json.dumps(FILES[schema] | {"version": 0}))
    with pytest.raises(RunDirectoryError, match="version: expected a number >= 1"):
        schema.read(path)


@pytest.mark.parametrize("content", EMPTIED)
def test_a_start_receipt_that_a_crash_has_emptied_is_none(content: bytes, tmp_path: Path) -> None:
    """`job.sh` does not wait for the disk before it starts the command; at the end it does."""
    path = tmp_path / "file.json"
    path.write_bytes(content)
    assert StartReceipt.read(path) is None


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b"\0" * 100, b"[" * 100_000, b'{"version": "1"}']
)
def test_a_damaged_file_is_named(schema: type[Record], content: bytes, tmp_path: Path) -> None:
    if schema is StartReceipt and content in EMPTIED:
        return
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(RunDirectoryError, match=rf"file\.json: not a valid {schema.__name__}"):
        schema.read(path)


def test_a_missing_file_is_none_and_an_unreadable_one_is_not(tmp_path: Path) -> None:
    assert StartReceipt.read(tmp_path / "none.json") is None
    with pytest.raises(OSError, match=r"Is a directory|Permission denied"):
        StartReceipt.read(tmp_path)


def test_a_result_that_json_cannot_hold_is_refused_before_it_is_written(tmp_path: Path) -> None:
    result = RunResultFile.from_dict(FILES[RunResultFile])
    with pytest.raises(ValueError, match=r"metrics\.loss: expected a finite number"):
        dataclasses.replace(result, metrics={"loss": float("nan")})


def test_every_path_is_in_the_contract_and_the_other_way_round() -> None:
    sweep, run = SweepDirectory(Path()), RunDirectory(Path("runs/<name>"))
    attempt = Attempt(run.attempts_dir / "<n>", 1)
    files = [sweep.sweep_file, sweep.lock_file, sweep.report_file, run.config_yaml, run.config_json, run.job_script]
    files += [run.code_file, run.code_diff]
    files += [run.metrics_file, run.goal_file, run.result_file, attempt.started_file, attempt.finished_file]
    files += [run.ask_file("<n>"), attempt.before_file]  # type: ignore[arg-type]
    files += [attempt.time_limit_file, attempt.memory_file]
    files += [attempt.path / "task-<rank>"]  # job.sh's own
    files += [run.log_file("<n>"), run.metrics_file.with_suffix(".csv")]  # type: ignore[arg-type]
    names = ("intent.json", "<k>.sh", "<k>.task.sh", "<k>.tasks", "<k>.sent", "<k>.job.json", "<k>.refused", "<k>.out")
    files += [Path("submissions/<token>", name) for name in (*names, "cancelled/<name>", "given-up/<name>")]
    files += [run.path / "ledger.json", run.path / "ledger.trail"]  # the trainer's own
    folders = [run.checkpoints_dir, attempt.path, Path("code/<tree-hash>")]
    folders += [run.metrics_file.with_name(name) for name in ("tensorboard", "media", "profile")]
    assert {contract.path for contract in CONTRACT} == {str(f) for f in files} | {f"{folder}/" for folder in folders}


def test_attempts_are_counted_in_order_and_foreign_names_ignored(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert run.attempts() == []
    for name in ("10", "2", "1", "0", "03", "x", "٣", ".4", "-5"):
        (run.attempts_dir / name).mkdir(parents=True)
    assert [attempt.number for attempt in run.attempts()] == [1, 2, 10]
    assert run.attempts()[0].started() is None
    receipt = FinishReceipt(attempt=1, outcome=Outcome.PREEMPTED, exit_status=75, finished_at=now())
    receipt.write(run.attempt(1).finished_file)
    assert run.attempts()[0].finished() == receipt


def test_what_was_asked_for_last_counts(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert (run.counts_from(), run.asks()) == (1, [])
    run.asked_dir.mkdir(parents=True)
    for number in (10, 9):
        Ask(attempt=number, by="ann@here", how="by name", asked_at=now()).write(run.ask_file(number))
    for name in (".11.json.7.tmp", "12", "x.json", "0.json"):
        (run.asked_dir / name).touch()
    assert run.counts_from() == 10
    assert [ask.attempt for ask in run.asks()] == [9, 10]


def test_runs_are_listed_by_name_and_foreign_names_ignored(tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path)
    assert (sweep.runs(), sweep.sweep()) == ([], None)
    for name in ("b", "a=1", ".b.123.tmp", "c d"):
        (sweep.runs_dir / name).mkdir(parents=True)
    assert [run.name for run in sweep.runs()] == ["a=1", "b"]


@given(st.text(max_size=200))
def test_a_safe_name_stays_inside_its_folder(name: str) -> None:
    sweep = SweepDirectory(Path("sweep"))
    if is_safe_name(name):
        assert sweep.run(name).path.parent == sweep.runs_dir
        assert sweep.run(name).name == name
    else:
        with pytest.raises(RunDirectoryError, match="cannot name a run"):
            sweep.run(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a..b", "-a", "a.lock", "a.", "a b", "a\n", "é", "x" * 129])
def test_unsafe_names(name: str) -> None:
    assert not is_safe_name(name)


def test_the_current_run_comes_from_the_environment() -> None:
    assert current_run({}) is None
    assert current_run({ENV_RUN_DIR: "/r"}) == (RunDirectory(Path("/r")), None)
    found = current_run({ENV_RUN_DIR: "/r", ENV_ATTEMPT: "3"})
    assert found == (RunDirectory(Path("/r")), Attempt(Path("/r/attempts/3"), 3))
    for text in ("0", "-1", "x", "1.0", "٣"):
        with pytest.raises(RunDirectoryError, match=ENV_ATTEMPT):
            current_run({ENV_RUN_DIR: "/r", ENV_ATTEMPT: text})


def test_metrics_are_read_up_to_the_line_being_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = '{"loss": 1.0, "note": "grün"}\n'.encode()
    for cut in range(len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert list(read_metrics(path)) == [{"loss": 1.0, "note": "grün"}]


@pytest.mark.parametrize("line", [b"\n", b"{\n", b"[1]\n", b"\xff\n", b"\0\0\n", b"[" * 100_000 + b"\n"])
def test_a_damaged_line_of_metrics_is_named(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"loss": 1.0}\n' + line + b'{"loss": 2.0}\n')
    records = read_metrics(path)
    assert next(records) == {"loss": 1.0}
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl:2: "):
        next(records)


def test_missing_metrics_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_metrics(tmp_path / "none"))


@given(st.data())
def test_the_short_way_of_reading_says_what_the_explaining_one_says(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(FILES, key=lambda item: item.__name__)))
    values = dict(FILES[kind])
    odd = st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
    key = data.draw(st.sampled_from([*values, "unknown"]))
    if data.draw(st.booleans()):
        values[key] = data.draw(odd)
    else:
        values.pop(key, None)
    quick = build(kind, values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mtf_settings, "build", lambda cls, data: None)
        patch.setattr(mtf_settings, "settle", lambda instance: False)
        explained, problems = kind.decode(values, ())
    assert (explained is None) == bool(problems)
    if quick is not None:
        assert quick == explained
        assert repr(quick) == repr(explained)  # 1 and 1.0 and True are equal
    if repr(values) == repr(FILES[kind]):
        assert quick is not None, "no real file takes the long way"
