"""The pages in a real browser: Debian's Chromium, without a screen."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.unit.test_pages_in_browser import violations
from textcls.inference.classifier import Classifier
from textcls.inference.explain import explain

from .conftest import BOUND_S, Service, service_of

SCRIPT = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


def shown(browser: Any, name: str) -> str:
    return str(browser.find_element(By.ID, name).text)


def classify(browser: Any, service: Service, text: str, key: str = "") -> None:
    """Types a text, presses the button and waits for the outcome."""
    browser.get(service.url + "/try")
    browser.find_element(By.ID, "key").send_keys(key)
    browser.find_element(By.ID, "text").send_keys(text)
    browser.find_element(By.ID, "go").click()
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: shown(browser, "answer") or shown(browser, "error"))


def explained(browser: Any, service: Service, text: str) -> None:
    """Classifies a text, presses the other button and waits for the words."""
    classify(browser, service, text)
    button = browser.find_element(By.ID, "explain")
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: button.is_displayed())
    button.click()
    WebDriverWait(browser, BOUND_S, 0.02).until(
        lambda _: shown(browser, "explained") or shown(browser, "explain_error")
    )


def stronger(service: Service, text: str) -> dict[str, Any]:
    """An explanation as the service gives it, but of a model that has learned something: the greatest effect is 1."""
    content: dict[str, Any] = service.ask("/explain", {"text": text}).json
    for one in content["explanations"]:
        greatest = max(abs(word["effect"]) for word in one["words"])
        for word in one["words"]:
            word["effect"] /= greatest
    return content


@pytest.fixture
def emulating(browser: Any) -> Iterator[Any]:
    """Sends a command of the DevTools protocol; what it emulates ends with the test."""
    yield browser.execute_cdp_cmd
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def problems(browser: Any) -> list[str]:
    """What the browser complained of: errors of the script, what the policy kept out."""
    return [line["message"] for line in browser.get_log("browser") if "favicon" not in line["message"]]


def test_a_typed_text_shows_label_scores_tokens_and_truncation(
    browser: Any, service: Service, classifier: Classifier
) -> None:
    for text in ("the film was really great", "every scene was dull " * 20):
        expected = classifier.scores([text])
        classify(browser, service, text)
        assert shown(browser, "answer") == expected.label(0)
        rows = [row.text.split() for row in browser.find_elements(By.CSS_SELECTOR, "#scores tr")]
        wanted = [[*label.split(), f"{100 * score:.1f}", "%"] for label, score in expected.ranked(0)]
        assert rows == wanted
        facts = shown(browser, "facts")
        assert facts.startswith(f"{expected.tokens[0]} tokens")
        assert ("truncated" in facts) == expected.truncated[0]
    assert problems(browser) == []


def test_a_text_that_cannot_be_scored_and_a_refused_request_are_told(browser: Any, service: Service) -> None:
    classify(browser, service, "  ")
    assert "white space" in shown(browser, "error")
    classify(browser, service, "x" * 2001)
    assert "2001 characters" in shown(browser, "error")
    assert shown(browser, "answer") == ""


def test_the_page_asks_with_the_key_that_was_typed(browser: Any, tiny_bundle: Path) -> None:
    with service_of(tiny_bundle, key="s3cret") as locked:
        classify(browser, locked, "great", "wrong")
        assert shown(browser, "error").startswith("401")
        classify(browser, locked, "great", "s3cret")
        assert shown(browser, "answer")


def test_what_is_shown_is_never_run(browser: Any, service: Service) -> None:
    classify(browser, service, SCRIPT)
    assert shown(browser, "answer")
    script = f"show({{label: {SCRIPT!r}, scores: [{{label: {SCRIPT!r}, score: 1}}], tokens: {SCRIPT!r}}}, '')"
    browser.execute_script(script)
    assert shown(browser, "answer") == SCRIPT
    assert browser.find_elements(By.CSS_SELECTOR, "#answer *, #scores img, #scores script, #facts *") == []
    assert browser.title == "Try the classifier"


def test_words_are_marked_by_a_line_and_a_colour_and_listed_with_what_changes_without_them(
    browser: Any, service: Service, classifier: Classifier
) -> None:
    text = "😀 the film was really great, but every scene was dull " + "the plot " * 20
    browser.get(service.url + "/try")
    problems(browser)  # of the tests before
    browser.execute_script("document.getElementById('text').value = arguments[0]", text)
    button = browser.find_element(By.ID, "explain")
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: button.is_displayed())
    button.click()
    WebDriverWait(browser, BOUND_S, 0.02).until(
        lambda _: shown(browser, "explained") or shown(browser, "explain_error")
    )
    (one,) = explain(classifier, [text])[0]  # type: ignore[misc]
    assert f"Why {one.label} has {100 * one.score:.1f} %" in shown(browser, "explained")
    shown_text = browser.find_element(By.CSS_SELECTOR, "#explained .text").get_attribute("textContent")
    assert shown_text == text
    assert "No word has much effect: the strongest changes the logit by 0.0" in shown(browser, "explained")
    assert browser.find_elements(By.CSS_SELECTOR, "#explained mark.s3") == []
    browser.execute_script("clear(); showWhy(arguments[0], [arguments[1]])", stronger(service, text), text)
    assert "No word has much effect" not in shown(browser, "explained")
    strongest = max(one.words, key=lambda word: abs(word.effect))
    (word,) = {text[strongest.start : strongest.end]}
    kind = "for" if strongest.effect > 0 else "against"
    marks = browser.find_elements(By.CSS_SELECTOR, f"#explained mark.{kind}.s3")
    assert word in [mark.text for mark in marks]
    mark = next(mark for mark in marks if mark.text == word)
    assert mark.value_of_css_property("border-bottom-style") == {"for": "solid", "against": "dashed"}[kind]
    assert f"without it {100 * strongest.score_without:.1f} %" in mark.get_attribute("title")
    assert "1 of the tokens is unknown to the model." in shown(browser, "explained")
    (left_out,) = browser.find_elements(By.CSS_SELECTOR, "#explained .unseen")
    assert left_out.text == text[one.unseen[0].start : one.unseen[0].end]
    browser.find_element(By.CSS_SELECTOR, "#explained summary").click()
    rows = browser.find_elements(By.CSS_SELECTOR, "#explained tbody tr")
    assert len(rows) == len(one.words)
    assert rows[0].text.split()[:2] == [word, kind]
    assert problems(browser) == []


def test_an_explanation_that_is_refused_is_told_and_html_in_it_is_text(browser: Any, service: Service) -> None:
    browser.get(service.url + "/try")
    button = browser.find_element(By.ID, "explain")
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: button.is_displayed())
    button.click()
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: shown(browser, "explain_error"))
    assert "422: empty_text" in shown(browser, "explain_error")
    word = {"text": 0, "start": 0, "end": len(SCRIPT), "word": SCRIPT, "effect": 1, "score_without": 0.5}
    content = {"explanations": [{"label": SCRIPT, "score": 1, "words": [word]}], "unseen": []}
    browser.execute_script("showWhy(arguments[0], [arguments[1]])", content, SCRIPT)
    assert shown(browser, "explained").count(SCRIPT) == 2
    assert browser.find_elements(By.CSS_SELECTOR, "#explained img, #explained script") == []
    assert browser.title == "Try the classifier"


@pytest.mark.parametrize("page", ["/try", "/docs"])
def test_a_page_loads_nothing_from_elsewhere_and_runs_no_other_script(
    browser: Any, service: Service, page: str
) -> None:
    browser.get(service.url + page)
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [url for url in asked if not url.startswith(service.url)] == []
    # Put in afterwards, as a flaw of the page would: the policy that came with the page keeps it from running.
    browser.execute_script(
        "const made = document.createElement('script'); made.textContent = \"document.title = 'run'\";"
        "document.body.append(made);"
    )
    assert browser.title != "run"
    assert any("Content Security Policy" in problem for problem in problems(browser))


def test_docs_show_every_path_and_refusal(browser: Any, service: Service) -> None:
    browser.get(service.url + "/docs")
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: shown(browser, "shapes"))
    text = browser.find_element(By.TAG_NAME, "body").text
    for path, methods in service.ask("/openapi.json").json["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in text
            for answer in operation["responses"].values():
                assert answer["description"] in text
    assert problems(browser) == []


def test_a_model_of_pairs_has_a_second_field(browser: Any, pair_bundle: Path, service: Service) -> None:
    with service_of(pair_bundle) as pairs:
        browser.get(pairs.url + "/try")
        second = browser.find_element(By.ID, "text_pair")
        WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: second.is_displayed())
        browser.find_element(By.ID, "text").send_keys("the film")
        second.send_keys("was great")
        browser.find_element(By.ID, "go").click()
        WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: shown(browser, "answer"))
    classify(browser, service, "great")
    assert not browser.find_element(By.ID, "text_pair").is_displayed()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_an_explained_text_is_accessible_in_light_and_dark_colours(
    browser: Any, service: Service, emulating: Any, colours: str
) -> None:
    emulating("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colours}]})
    text = "the film was really great, but every scene was dull " + "the plot " * 20
    explained(browser, service, text)
    browser.execute_script("showWhy(arguments[0], [arguments[1]])", stronger(service, text), text)
    for part in browser.find_elements(By.TAG_NAME, "summary"):
        if part.is_displayed():
            part.click()
    for part in ("mark.for.s3, #explained mark.against.s3", ".unseen", "td"):
        assert browser.find_elements(By.CSS_SELECTOR, f"#explained {part}")
    assert violations(browser) == []
    ground = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (ground == "rgba(255, 255, 255, 1)") == (colours == "light")


def test_many_labels_with_long_names_fit_a_phone_and_leave_room_for_the_explanation(
    browser: Any, service: Service, emulating: Any
) -> None:
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    emulating("Emulation.setDeviceMetricsOverride", phone)
    browser.get(service.url + "/try")
    button = browser.find_element(By.ID, "explain")
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: button.is_displayed())
    names = [f"{'request_about_' * 5}{n}" for n in range(77)]
    browser.execute_script(
        "const [names] = arguments;"
        "show({label: names[0], scores: names.map(label => ({label, score: 1 / names.length})), tokens: 9}, '');"
        "for (const name of names) at('label').add(new Option(name, name));"
        "showWhy({explanations: [{label: names[0], score: 1, words: []}], unseen: []}, ['fine']);",
        names,
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    bars = browser.find_elements(By.CSS_SELECTOR, "#scores progress")
    assert len(bars) == 10
    assert min(bar.size["width"] for bar in bars) > 100
    assert shown(browser, "others") == "The other 67 labels"
    browser.find_element(By.ID, "others").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, "#other_scores tr")) == 67
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360


def test_an_explanation_that_takes_long_says_that_it_is_on_its_way(browser: Any, service: Service) -> None:
    classify(browser, service, "the film was really great")
    button = browser.find_element(By.ID, "explain")
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: button.is_displayed())
    named = button.text
    browser.execute_script("window.fetch = () => new Promise(answer => { window.answered = answer; })")
    button.click()
    assert (button.text, button.is_enabled()) == ("Explaining, a text for each word", False)
    refusal = "answered(new Response(JSON.stringify({error: {message: 'later'}}), {status: 429}))"
    browser.execute_script(refusal)
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: shown(browser, "explain_error"))
    assert shown(browser, "explain_error") == "429: later"
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: button.is_enabled())
    assert button.text == named


def test_the_answer_to_another_text_does_not_stand_above_an_explanation(browser: Any, service: Service) -> None:
    explained(browser, service, "the film was really great")
    assert shown(browser, "answer")
    assert shown(browser, "facts")
    browser.find_element(By.ID, "text").send_keys(" but dull")
    browser.find_element(By.ID, "explain").click()
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: "but dull" in shown(browser, "explained"))
    assert (shown(browser, "answer"), shown(browser, "facts"), shown(browser, "scores")) == ("", "", "")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_docs_are_accessible_and_fit_a_phone(browser: Any, service: Service, emulating: Any, colours: str) -> None:
    emulating("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colours}]})
    browser.get(service.url + "/docs")
    WebDriverWait(browser, BOUND_S, 0.02).until(lambda _: shown(browser, "shapes"))
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert violations(browser) == []
    ground = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (ground == "rgba(255, 255, 255, 1)") == (colours == "light")
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    emulating("Emulation.setDeviceMetricsOverride", phone)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
