import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BadInput
from serving.tuning.arrivals import ArrivalProcess
from serving.tuning.lengths import Lengths
from serving.tuning.synthetic import Synthetic
from serving.tuning.workload_file import parse_workload, read_workload, write_workload

TALK = b'{%s"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}'
PROMPT, OUTPUT = Lengths("fixed", 100), Lengths("fixed", 20)


def synthetic(**changes):
    values = {"requests": 4000, "rate_per_second": 5.0, "prompt": PROMPT, "output": OUTPUT, "seed": 3}
    return Synthetic(**(values | changes)).workload()


def gaps(workload):
    return np.diff(workload.arrival_seconds)


@pytest.mark.parametrize("arrivals", ["poisson", "gamma", "diurnal"])
def test_the_mean_rate_is_the_one_asked_for(arrivals):
    workload = synthetic(arrivals=arrivals, day_seconds=100.0)
    assert workload.rate_per_second == pytest.approx(5.0, rel=0.1)


def test_bursty_gaps_vary_as_asked_and_poisson_gaps_by_one():
    poisson, bursty = gaps(synthetic()), gaps(synthetic(arrivals="gamma", burstiness=3.0))
    assert poisson.std() / poisson.mean() == pytest.approx(1.0, rel=0.1)
    assert bursty.std() / bursty.mean() == pytest.approx(3.0, rel=0.2)


def test_a_diurnal_rate_is_high_in_one_half_and_low_in_the_other():
    workload = synthetic(arrivals="diurnal", day_seconds=100.0, amplitude=0.8)
    hour = workload.arrival_seconds % 100.0
    peak, night = np.sum((hour > 15) & (hour < 35)), np.sum((hour > 65) & (hour < 85))
    assert peak > 5 * night


def test_the_beginning_of_a_day_has_the_mean_rate():
    assert synthetic(arrivals="diurnal").rate_per_second == pytest.approx(5.0, rel=0.1)


def test_less_than_a_day_is_told_by_its_share():
    process = ArrivalProcess(20.0, "diurnal")
    assert process.part_of_a_day(10_000) == pytest.approx(500 / 86_400)
    assert process.part_of_a_day(20 * 86_400) is None
    assert ArrivalProcess(20.0).part_of_a_day(10_000) is None


def test_the_seed_decides():
    assert np.array_equal(synthetic().arrival_seconds, synthetic().arrival_seconds)
    assert not np.array_equal(synthetic().arrival_seconds, synthetic(seed=4).arrival_seconds)


def test_repeats_equal_an_original_that_is_no_repeat_itself():
    workload = synthetic(repeat_ratio=0.4, prompt=Lengths.parse("uniform:5-500", "prompt"))
    repeats = np.flatnonzero(workload.repeat_of >= 0)
    originals = workload.repeat_of[repeats]
    assert len(repeats) == pytest.approx(1600, rel=0.1)
    assert np.all(workload.repeat_of[originals] == -1)
    assert np.array_equal(workload.prompt_tokens[repeats], workload.prompt_tokens[originals])


def test_a_shared_prefix_is_never_longer_than_the_prompt():
    workload = synthetic(prefix_tokens=200, prefix_ratio=0.5, prompt=Lengths.parse("uniform:50-500", "prompt"))
    assert workload.prefix_tokens.max() == 200
    assert np.all(workload.prefix_tokens <= workload.prompt_tokens)


@given(mean=st.floats(20, 2000), spread=st.floats(0, 1.5))
def test_lognormal_lengths_have_the_mean_asked_for(mean, spread):
    drawn = Lengths("lognormal", mean, spread).draw(np.random.default_rng(0), 20_000)
    assert drawn.min() >= 1
    assert drawn.mean() == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize("text", ["", "many", "uniform:10", "uniform:20-10", "lognormal:5", "0", "normal:1,2", "nan"])
def test_a_distribution_that_is_none_is_refused_by_name(text):
    with pytest.raises(BadInput, match="--prompt-tokens"):
        Lengths.parse(text, "--prompt-tokens")


@pytest.mark.parametrize(
    "change", [{"requests": 0}, {"rate_per_second": 0}, {"burstiness": 0}, {"repeat_ratio": 1.5}, {"prefix_tokens": -1}]
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises(BadInput):
        synthetic(**change)


def test_a_written_workload_reads_back_the_same(tmp_path):
    workload = synthetic(requests=200, repeat_ratio=0.3, prefix_tokens=10, prefix_ratio=0.5)
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(write_workload(workload)))
    read = read_workload(path)
    assert read.arrival_seconds == pytest.approx(workload.arrival_seconds - workload.arrival_seconds[0])
    for column in ("prompt_tokens", "output_tokens", "prefix_tokens", "repeat_of"):
        assert np.array_equal(getattr(read, column), getattr(workload, column))
    assert read.texts is None


def test_conversations_are_read_in_both_forms():
    lines = [
        b'{"conversations": [{"from": "human", "value": "one two three"}, {"from": "gpt", "value": "four"}]}',
        b"",
        b'{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "q"}, '
        b'{"role": "assistant", "content": "a b c d e f"}]}',
    ]
    workload = parse_workload(lines, "chat.jsonl")
    assert workload.texts == ("one two three", "q")
    assert workload.output_tokens.tolist() == [1, 8]
    assert not workload.timed
    assert workload.arriving(np.array([0.0, 2.0]), "drawn").timed


def test_times_count_from_the_first_arrival():
    row = b'{"arrival_seconds": %d, "prompt_tokens": 1, "output_tokens": 1}'
    workload = parse_workload([row % 36_000, row % 36_002], "log.jsonl")
    assert workload.arrival_seconds.tolist() == [0.0, 2.0]
    assert workload.timed


def test_every_broken_line_is_named_with_its_number():
    lines = [
        b'{"arrival_seconds": 0, "prompt_tokens": 3, "output_tokens": 3}',
        b"{",
        b'{"arrival_seconds": 1, "prompt_tokens": 0, "output_tokens": 3}',
        b'{"conversations": []}',
        b"[]",
    ]
    with pytest.raises(BadInput) as caught:
        parse_workload(lines, "log.jsonl")
    for words in ("line 2: not JSON", "line 3: prompt_tokens", "line 4: no turn of a human", "line 5: expected an"):
        assert words in str(caught.value)


def test_more_faults_than_one_can_read_are_counted():
    with pytest.raises(BadInput, match="and 95 more"):
        parse_workload([b"{"] * 100, "log.jsonl")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "no requests"),
        (
            [
                b'{"arrival_seconds": 5, "prompt_tokens": 1, "output_tokens": 1}',
                b"",
                b"",
                b'{"arrival_seconds": 5, "prompt_tokens": 1, "output_tokens": 1}',
                b'{"arrival_seconds": 1, "prompt_tokens": 1, "output_tokens": 1}',
            ],
            "line 5 arrives before",
        ),
        (
            [
                b"",
                b'{"arrival_seconds": 5, "prompt_tokens": 1, "output_tokens": 1}',
                TALK % b"",
            ],
            "line 2 is lengths alone, line 3 is a conversation",
        ),
        ([TALK % b'"arrival_seconds": 2, ', b"", TALK % b""], "line 3 has no arrival_seconds"),
        ([b'{"arrival_seconds": 5, "prompt_tokens": 1, "output_tokens": 1, "repeat_of": 0}'], "not an earlier"),
    ],
)
def test_a_file_that_makes_no_workload_is_refused(lines, words):
    with pytest.raises(BadInput, match=words):
        parse_workload(lines, "log.jsonl")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"absent\.jsonl"):
        read_workload(tmp_path / "absent.jsonl")


def test_another_rate_keeps_the_order_and_the_lengths():
    workload = synthetic(requests=100)
    faster = workload.at_rate(50.0)
    assert faster.rate_per_second == pytest.approx(50.0)
    assert np.array_equal(faster.prompt_tokens, workload.prompt_tokens)
