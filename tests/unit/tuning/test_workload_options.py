import numpy as np
import pytest

from metering.errors import BadInput
from serving.cli.workload_options import ArrivalsOption, WorkloadOptions

TALK = '{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}\n'
TIMED = '{{"arrival_seconds": {}, "prompt_tokens": 8, "output_tokens": 4}}\n'


def chosen(drawn=100, **options):
    return WorkloadOptions(**{"prompt_tokens": "8", "output_tokens": "4", **options}).chosen(drawn)


@pytest.fixture
def talks(tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_text(TALK * 200)
    return path


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(TIMED.format(number / 2) for number in range(200)))
    return path


def test_a_file_without_times_gets_drawn_ones_and_says_so(talks, capsys):
    assert chosen(workload=talks).rate_per_second == pytest.approx(1.0, rel=0.2)
    assert chosen(workload=talks, rate=8.0).rate_per_second == pytest.approx(8.0, rel=0.2)
    assert "says no arrival times: drawn, poisson, 8 requests/s" in " ".join(capsys.readouterr().err.split())
    bursts = np.diff(chosen(workload=talks, arrivals=ArrivalsOption.GAMMA, burstiness=3.0).arrival_seconds)
    assert bursts.std() > 1.8 * bursts.mean()


def test_a_files_own_times_stay_unless_arrivals_says_how(log):
    assert np.ptp(np.diff(chosen(workload=log).arrival_seconds)) == 0
    assert chosen(workload=log, rate=10.0).rate_per_second == pytest.approx(10.0)
    redrawn = chosen(workload=log, arrivals=ArrivalsOption.POISSON)
    assert np.ptp(np.diff(redrawn.arrival_seconds)) > 0
    assert redrawn.rate_per_second == pytest.approx(2.0, rel=0.2)


def test_the_seed_decides_the_drawn_times(talks):
    one, same, other = (chosen(workload=talks, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.arrival_seconds, same.arrival_seconds)
    assert not np.array_equal(one.arrival_seconds, other.arrival_seconds)


def test_less_than_a_day_is_said_to_be(capsys):
    chosen(10_000, arrivals=ArrivalsOption.DIURNAL, rate=20.0)
    assert "the first 0.58% of a day" in " ".join(capsys.readouterr().err.split())
    chosen(1000, arrivals=ArrivalsOption.DIURNAL, rate=20.0, day_seconds=50.0, amplitude=0.3)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_rate_that_is_none_is_refused(talks, rate):
    with pytest.raises(BadInput, match="the rate must be positive"):
        chosen(workload=talks, rate=rate)
