from metering.work import EngineSteps
from serving.tuning.step_log import NAME, StepLog, StepRecord, read_steps


def steps(model="m", seconds=0.5, **changes):
    values = {"steps": 4, "sequence_steps": 33, "prefill_tokens": 50, "decode_tokens": 32, "context_tokens": 3200}
    return EngineSteps(model, 10.0, 10.0 + seconds, **(values | changes))


def test_what_was_written_is_read_by_model(tmp_path):
    log = StepLog(tmp_path)
    log.add(steps())
    log.add(steps("other", seconds=0.25))
    assert read_steps(tmp_path) == {
        "m": [StepRecord(32, 50, 3200, 0.5, steps=4)],
        "other": [StepRecord(32, 50, 3200, 0.25, steps=4)],
    }


def test_steps_that_tell_nothing_of_what_they_held_are_left_out(tmp_path):
    StepLog(tmp_path).add(steps(prefill_tokens=0, decode_tokens=0))
    StepLog(tmp_path).add(steps(seconds=0.0))
    assert read_steps(tmp_path) == {}


def test_a_damaged_line_costs_only_itself(tmp_path):
    log = StepLog(tmp_path)
    log.add(steps())
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"model": "m", "steps"\n[1]\n{"model": "m", "wrong": 1}\n')
    log.add(steps())
    assert len(read_steps(tmp_path)["m"]) == 2


def test_the_file_is_bounded_and_the_one_before_it_kept(tmp_path):
    log = StepLog(tmp_path, most_bytes=1000)
    for _ in range(100):
        log.add(steps())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2500
    assert 5 < len(read_steps(tmp_path)["m"]) < 100


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path):
    StepLog(tmp_path / "gone").add(steps())
    assert read_steps(tmp_path / "gone") == {}
