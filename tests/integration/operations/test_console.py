"""The console in a real browser, over a gateway that works."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.integration.operations.browser import chromium, window
from tests.integration.serving.gateway_process import GatewayProcess, until
from tests.integration.serving.test_lifecycle import nothing_is_left_after

pytestmark = [pytest.mark.ray, pytest.mark.redis]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def console(browser: webdriver.Chrome, gateway: GatewayProcess) -> webdriver.Chrome:
    window(browser, 1280, 1000)
    browser.get_log("browser")
    browser.get(f"{gateway.url}/console")
    until(lambda: text(browser, "state") == "ready", what="the first figures")
    until(lambda: browser.find_elements(By.CSS_SELECTOR, "#model option"), what="the models")
    return browser


def text(browser: webdriver.Chrome, ident: str) -> str:
    return browser.find_element(By.ID, ident).text


def ask(browser: webdriver.Chrome, prompt: str) -> str:
    box = browser.find_element(By.ID, "prompt")
    box.clear()
    box.send_keys(prompt)
    box.send_keys(Keys.CONTROL, Keys.ENTER)
    return until(
        lambda: (said := text(browser, "said")).startswith(("Complete", "Failed")) and said, what="the answer's end"
    )


def errors(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_a_prompt_sent_by_keyboard_is_answered_with_its_receipt(console: webdriver.Chrome) -> None:
    assert re.match(r"Complete: \d+ tokens in ", ask(console, "A question from the page."))
    assert text(console, "answer").startswith("simulated")
    receipt = text(console, "receipt")
    assert all(part in receipt for part in ("Energy", "Carbon", "MFU", "First token", "simulated", "miss"))
    until(lambda: "final" in text(console, "receipts"), what="the final receipt")
    ask(console, "A question from the page.")
    assert "hit, exact" in text(console, "receipts")
    assert errors(console) == []


def test_figures_are_those_of_the_gateway(console: webdriver.Chrome, gateway: GatewayProcess) -> None:
    ask(console, "Another question from the page.")
    until(lambda: f"{gateway.metric('wattgate_requests_total'):,.0f}" in text(console, "tenants"), what="its requests")
    assert text(console, "figure-power").splitlines()[1].split()[1] == "W"
    assert "default" in text(console, "tenants")
    assert "simulated-1b" in text(console, "models")
    assert "of 32" in text(console, "batch")
    assert "475 g/kWh" in text(console, "intensity")
    assert text(console, "method") == "energy simulated"


TWO_MODELS = """\
wattgate_engine_ready{model="away"} 0
wattgate_engine_ready{model="there"} 1
wattgate_requests_total{model="there",tenant="t",status="200"} 3
wattgate_request_grams_total{model="there",tenant="t",scope="operational"} 2
wattgate_request_grams_total{model="there",tenant="t",scope="embodied"} 1
wattgate_request_grams_total{model="there",tenant="t",scope="operational_marginal"} 40
"""


def shown(browser: webdriver.Chrome, exposition: str) -> dict[str, str]:
    """What the page makes of such figures, before its next poll; as if no others had been seen."""
    return browser.execute_script(  # type: ignore[no-any-return, no-untyped-call]
        """
        served.clear();
        render(parse(arguments[0]));
        const parts = ["state", "notices", "models", "tenants", "figure-carbon", "figure-gramsper"];
        return Object.fromEntries(parts.map(id => [id, document.getElementById(id).innerText]));
        """,
        exposition,
    )


def test_a_model_without_an_engine_is_told_although_another_has_one(console: webdriver.Chrome) -> None:
    page = shown(console, TWO_MODELS)
    assert page["state"] == "1 of 2 models not ready"
    assert "No engine is ready for away:" in page["notices"]
    cells = {line.split("\t")[0]: line.split("\t") for line in page["models"].splitlines()}
    assert cells["Model"][:4] == ["Model", "Ready", "MFU", "Requests"]
    assert cells["away"][:4] == ["away", "none", "–", "0"]
    assert cells["there"][:4] == ["there", "1", "–", "3"]
    whole = shown(console, TWO_MODELS.replace('"away"} 0', '"away"} 1'))
    assert (whole["state"], "No engine" in whole["notices"]) == ("ready", False)
    none = shown(console, TWO_MODELS.replace('"there"} 1', '"there"} 0'))
    assert none["state"] == "no engine ready"
    one_asleep = shown(console, TWO_MODELS + 'wattgate_engine_asleep{model="there"} 1\n')
    assert "The engine of there is unloaded" in one_asleep["notices"]


def test_a_model_whose_series_went_with_its_replica_is_told(console: webdriver.Chrome) -> None:
    gone = "\n".join(line for line in TWO_MODELS.splitlines() if "away" not in line)
    # in one go: the page's own poll between them would show it another gateway
    state = console.execute_script(  # type: ignore[no-untyped-call]
        """
        served.clear();
        for (const exposition of arguments) render(parse(exposition));
        served.clear();
        return document.getElementById("state").innerText;
        """,
        TWO_MODELS.replace('"away"} 0', '"away"} 1'),
        gone,
    )
    assert state == "1 of 2 models not ready"


def rates(browser: webdriver.Chrome, *expositions: str) -> list[float | None]:
    """Tokens a second as each of these adds to those before it, ten seconds apart."""
    return browser.execute_script(  # type: ignore[no-any-return, no-untyped-call]
        """
        const kept = samples.splice(0), found = [];
        arguments[0].forEach((text, number) => {
          const series = parse(text);
          samples.push({ at: 10 * number, series, up: up(series), values: {} });
          found.push(rate("tokens_total", OUTPUT));
        });
        samples.splice(0, samples.length, ...kept);
        return found;
        """,
        list(expositions),
    )


def tokens_of(**nodes: int | None) -> str:
    lines = [f'wattgate_node_up{{instance="{name}"}} {0 if count is None else 1}' for name, count in nodes.items()]
    return "\n".join(
        lines
        + [
            f'wattgate_tokens_total{{instance="{name}",model="m",kind="output"}} {count}'
            for name, count in nodes.items()
            if count
        ]
    )


def test_rates_are_of_what_was_seen_twice(console: webdriver.Chrome) -> None:
    missed = (
        tokens_of(a=1000, b=5000),
        tokens_of(a=1100, b=None),
        tokens_of(a=1200, b=5100),
        tokens_of(a=1300, b=5200),
    )
    assert rates(console, *missed) == [None, 10, 15, 10], "5,000 tokens of a node that was silent are no rate"
    assert rates(console, tokens_of(a=0), tokens_of(a=100)) == [None, 10], "a node's first tokens are"
    assert rates(console, tokens_of(a=1000), tokens_of(a=10), tokens_of(a=110)) == [None, 0, 0]


def test_mfu_is_of_all_models_together(console: webdriver.Chrome) -> None:
    def work(seconds: int) -> str:
        return (
            f'wattgate_flops_total{{model="busy"}} {60 * seconds}\n'
            f'wattgate_possible_flops_total{{model="busy"}} {100 * seconds}\n'
            f'wattgate_flops_total{{model="slow"}} {10 * seconds}\n'
            f'wattgate_possible_flops_total{{model="slow"}} {100 * seconds}\n'
        )

    found = console.execute_script(  # type: ignore[no-untyped-call]
        """
        const kept = samples.splice(0);
        for (const [number, text] of arguments[0].entries())
          samples.push({ at: 10 * number, series: parse(text), up: up({}), values: {} });
        const found = [mfu(), mfu({ model: "busy" }), mfu({ model: "another" })];
        samples.splice(0, samples.length, ...kept);
        return found;
        """,
        [work(10), work(20)],
    )
    assert found == [35, 60, None]


def test_grams_of_a_marginal_signal_stand_apart(console: webdriver.Chrome) -> None:
    page = shown(console, TWO_MODELS)
    assert "3 g in all; 40 g marginal, apart" in page["figure-carbon"]
    assert "marginal not in it" in page["figure-gramsper"]
    for table in ("models", "tenants"):
        head, *lines = [line.split("\t") for line in page[table].splitlines()]
        (line,) = (line for line in lines if line[0] in ("there", "t"))
        assert (line[head.index("Carbon")], line[head.index("Marginal")]) == ("3 g", "40 g")
    alone = "\n".join(line for line in TWO_MODELS.splitlines() if "marginal" not in line)
    assert "Marginal" not in shown(console, alone)["models"]
    assert "marginal" not in shown(console, alone)["figure-carbon"]


def test_what_the_answer_says_is_never_run(console: webdriver.Chrome) -> None:
    ask(console, "<img src=x onerror=document.title='owned'>")
    assert "<img src=x" in text(console, "receipts")
    assert console.title == "wattgate console"
    assert console.find_elements(By.CSS_SELECTOR, "#receipts img") == []


def test_a_refusal_is_told(console: webdriver.Chrome) -> None:
    tokens = console.find_element(By.ID, "tokens")
    tokens.clear()
    tokens.send_keys("99999")
    assert ask(console, "Too much.") == "Failed."
    assert "context is 8192 tokens" in text(console, "answer")


def test_every_control_is_reached_by_keyboard_and_has_a_name(console: webdriver.Chrome) -> None:
    console.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = []
    for _ in range(12):
        console.switch_to.active_element.send_keys(Keys.TAB)
        active = console.switch_to.active_element
        if active.tag_name == "body":
            break
        reached.append(active.get_attribute("id"))
        assert active.accessible_name, active.get_attribute("outerHTML")[:200]
    assert {"theme", "key", "prompt", "model", "tokens", "cached", "send"} <= set(reached)
    for control in console.find_elements(By.CSS_SELECTOR, "main input, main select, main textarea, button"):
        assert not control.is_displayed() or control.accessible_name


def contrast(browser: webdriver.Chrome, selector: str) -> float:
    """Ratio of text to background, WCAG 2.2 section 1.4.3, over the nearest opaque background."""
    return browser.execute_script(  # type: ignore[no-any-return, no-untyped-call]
        """
        const parse = colour => colour.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
          .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
          .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
        let node = document.querySelector(arguments[0]);
        const ink = light(parse(getComputedStyle(node).color));
        while (node && parse(getComputedStyle(node).backgroundColor)[3] === 0) node = node.parentElement;
        const paper = light(parse(getComputedStyle(node || document.body).backgroundColor));
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        """,
        selector,
    )


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_dark(console: webdriver.Chrome, dark: bool) -> None:
    window(console, 1280, 1000, dark=dark)
    for selector in (
        "h1",
        "#state",
        "#method",
        ".figures dt",
        ".hint",
        "#send",
        "#theme",
        "label",
        "thead th",
        "footer",
    ):
        assert contrast(console, selector) >= 4.5, selector


def test_the_theme_can_be_chosen_and_is_kept(console: webdriver.Chrome, gateway: GatewayProcess) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = console.execute_script(paper)  # type: ignore[no-untyped-call]
    button = console.find_element(By.ID, "theme")
    while "dark" not in button.text:
        button.click()
    dark = console.execute_script(paper)  # type: ignore[no-untyped-call]
    assert dark != light
    console.refresh()
    assert console.execute_script(paper) == dark  # type: ignore[no-untyped-call]
    console.execute_script("sessionStorage.clear()")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_sticks_out_of_a_narrow_window(console: webdriver.Chrome, width: int) -> None:
    window(console, width, 800)
    assert console.execute_script("return document.documentElement.scrollWidth") <= width  # type: ignore[no-untyped-call]


def test_a_gateway_that_is_gone_is_told_and_the_figures_stay(tmp_path, browser: webdriver.Chrome) -> None:  # type: ignore[no-untyped-def]
    keys = {"WATTGATE_API_KEYS": "alice=secret-of-alice", "WATTGATE_ADMIN_KEY": "secret-of-the-operator"}
    other = GatewayProcess("--engine", "simulated", "--port", "0", environment=keys).wait_ready()
    try:
        browser.get(f"{other.url}/console")
        until(lambda: text(browser, "state") == "key needed", what="the question for a key")
        assert "API key" in text(browser, "notices")
        browser.find_element(By.ID, "key").click()
        browser.find_element(By.ID, "tenant-key").send_keys("secret-of-alice", Keys.ENTER)
        until(lambda: text(browser, "state") == "admin key needed", what="a tenant's key being told apart")
        browser.refresh()
        until(lambda: browser.find_elements(By.CSS_SELECTOR, "#model option"), what="the models, for a tenant too")
        assert ask(browser, "With a key.").startswith("Complete")
        until(lambda: "alice" in text(browser, "recent"), what="the tenant's own receipts")
        browser.find_element(By.ID, "key").click()
        browser.find_element(By.ID, "admin-key").send_keys("secret-of-the-operator", Keys.ENTER)
        until(lambda: text(browser, "state") == "ready", what="figures with the operator's key")
        until(lambda: "alice" in text(browser, "tenants"), what="the tenant's line")
        nothing_is_left_after(signal.SIGINT, other)
    finally:
        other.stop()
    until(lambda: text(browser, "state") in ("not reachable", "no engine ready"), what="the end being told")
    assert "alice" in text(browser, "tenants")
