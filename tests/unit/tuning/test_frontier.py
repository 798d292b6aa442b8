import warnings
from dataclasses import replace

import pytest

from serving.tuning.frontier import Picture, _lines, markdown, write_all, write_html
from serving.tuning.goal import Goal, Tried
from serving.tuning.pareto import knee, pareto
from serving.tuning.setting import Setting
from serving.tuning.slo import Slo


def trial(number, cap, latency, grams, meets=True, **changes):
    figures = {
        "e2e_p95_seconds": latency,
        "ttft_p95_seconds": latency / 5,
        "itl_p95_seconds": latency / 50,
        "grams_per_1k_output_tokens": grams,
        "output_tokens_per_second": 100 / grams,
    }
    return Tried(number, Setting(cap), figures | changes, meets, 0.0)


@pytest.fixture
def picture():
    goal = Goal("grams", Slo())
    tried = (
        trial(0, 1, 1.0, 10.0),
        trial(1, 8, 2.0, 3.0),
        trial(2, 16, 6.0, 2.0),
        trial(3, 64, 9.0, 1.5, meets=False),
        trial(4, 12, 3.0, 5.0, stopped_early=True, meets=False),
    )
    front = tuple(pareto(tried, goal))
    return Picture(tried, front, goal, Setting(1), Setting(16), knee(front, goal), "smollm2 <on> one core")


def test_the_pictures_stand_alone(picture, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        html, png, table = write_all(picture, tmp_path)
    page = html.read_text()
    assert "Plotly.newPlot" in page
    assert 'src="http' not in page
    for word in ("current", "recommended", "knee", "cap 16"):
        assert word in page
    assert png.read_bytes().startswith(b"\x89PNG")
    assert table.read_text() == markdown(picture)


def test_the_table_is_best_first_with_the_named_points(picture):
    rows = markdown(picture).splitlines()[2:]
    assert rows[0].startswith("| cap 16 |")
    assert "recommended" in rows[0]
    assert "knee" in rows[1]
    assert "current" in rows[2]
    assert "broken" in rows[3]
    assert "ended early" in rows[4]


@pytest.mark.parametrize(
    ("objective", "word"), [("grams", "carbon"), ("joules", "energy"), ("cost", "cost"), ("tokens", "throughput")]
)
def test_the_knee_is_explained_in_the_objectives_words_beneath_the_table(picture, objective, word):
    table = markdown(replace(picture, goal=Goal(objective, Slo())))
    assert table.splitlines()[-1].startswith("Knee: left of it")
    assert word in table.splitlines()[-1]


def test_a_trial_without_the_figure_is_in_the_table_and_not_in_the_picture():
    goal = Goal("grams", Slo())
    lacking = trial(0, 1, 1.0, 1.0, grams_per_1k_output_tokens=None)
    picture = Picture((lacking,), (), goal, Setting(1), None, None, "t")
    assert picture.drawable == ()
    assert "cap 1" in markdown(picture)


def test_a_line_joins_settings_of_one_engine_only(tmp_path):
    goal = Goal("grams", Slo())
    settings = [Setting(cap, dtype=dtype) for cap, dtype in ((4, "float32"), (2, "bfloat16"), (2, "float32"))]
    tried = tuple(
        replace(trial(number, 1, 3.0 - number, 1.0 + number), setting=setting)
        for number, setting in enumerate(settings)
    )
    picture = Picture(tried, tuple(pareto(tried, goal)), goal, settings[2], settings[0], None, "t")
    path = tmp_path / "frontier.html"
    write_html(picture, path)
    page = path.read_text()
    for name in ("frontier, dtype float32", "frontier, dtype bfloat16", "first token p95, s, dtype float32"):
        assert page.count(name) == 1
    assert [[one.setting for one in points] for _, points in _lines(tried)] == [settings[::2], settings[1:2]]
    assert [label for label, _ in _lines(tried[:1])] == [""]
