"""The page of the service, in a real browser."""

import contextlib

import pytest

from tests import browser as browsers
from tests.fake_predictor import FakePredictor, ScriptedPredictor
from tests.http_service import running

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(bool(browsers.missing()), reason=browsers.missing()),
]

PHONE = (360, 740)
DESKTOP = (1280, 900)
HTML = '<img src=x onerror="document.title=1"><script>document.title=2</script>&amp;'


@pytest.fixture(scope="module")
def driver():
    with browsers.driver() as port:
        yield port


@pytest.fixture(scope="module")
def phone(driver):
    with browsers.window(driver, *PHONE) as browser:
        yield browser


@contextlib.contextmanager
def page_of(browser, predictor):
    """Opens the page of a service of the predictor; yields it."""
    with running(predictor) as service:
        browser.open("http://127.0.0.1:{}/".format(service.port))
        browser.find("#run")
        yield service


def submit(browser, **texts):
    """Fills in the fields and asks; returns the text of the result."""
    for name, text in texts.items():
        browser.find("#" + name).write(text)
    browser.run('document.getElementById("result").replaceChildren()')
    browser.find("#run").click()
    return browser.find("#result > *") and browser.find("#result").text


def texts_of(browser, selector):
    return [element.text for element in browser.find_all(selector)]


def fits(browser):
    """Whether nothing is wider than the window."""
    return browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_a_pair_is_judged_with_its_tokens(phone):
    with page_of(phone, FakePredictor()):
        assert "判断两段文字" in phone.find("h1").text
        result = submit(phone, text_a="花呗", text_b="花呗")
        assert phone.find(".verdict").text == "1"
        assert texts_of(phone, ".rows li") == ["1\n100.0 %", "0\n0.0 %"]
        assert texts_of(phone, ".token") == list("花呗花呗")
        assert "请求与响应" in result
        submit(phone, text_b="借呗")
        assert phone.find(".verdict").text == "0"
        assert fits(phone)


def test_both_languages(driver):
    with browsers.window(driver, *DESKTOP, language="en-US") as browser:
        with page_of(browser, FakePredictor()):
            assert browser.find("h1").text == "Judge two texts"
            submit(browser, text_a="a", text_b="b")
            browser.find("#language").click()
            assert browser.find("h1").text == "判断两段文字"
            assert browser.run("return document.documentElement.lang") == "zh-CN"
            # What was typed and shown stays.
            assert browser.find(".verdict").text == "0"
            assert browser.run("return document.getElementById('text_a').value") == "a"


def test_errors_are_shown(phone):
    with page_of(phone, FakePredictor()) as service:
        assert "instances[0]: text_a: too long" in submit(phone, text_a="a" * 33)
        assert "请填写：文本一" in submit(phone, text_a="  ")
        service.stop()
        service.thread.join(browsers.TIMEOUT_SECONDS)
        assert "无法连接到服务" in submit(phone, text_a="a")
        # And the button works again.
        assert phone.find("#run").text == "判断"


def test_html_in_texts_stays_text(phone):
    answer = {"label": HTML, "probabilities": {HTML: 0.75, "b": 0.25}}
    predictor = ScriptedPredictor("classification", ("text",), answer)
    predictor.tokenize = lambda text: [{"token": text, "id": 0, "start": 0, "end": 1}]
    with page_of(phone, predictor):
        submit(phone, text=HTML)
        assert phone.find(".verdict").text == HTML
        assert phone.find(".token").text == HTML
        assert predictor.instances == [{"text": HTML}]
        assert phone.run("return document.querySelectorAll('img').length") == 0
        assert phone.run("return document.title") == "文本分类"
        assert fits(phone)


def test_entities_are_marked_where_they_are(phone):
    # The first character has two code units in JavaScript.
    text = "𠮷田在北京大学<b>"
    spans = [(0, 2, "PER"), (3, 7, "ORG"), (3, 5, "LOC"), (7, 10, "X"), (6, 8, "Y")]
    answer = {
        "entities": [
            {"start": start, "end": end, "text": text[start:end], "type": kind}
            for start, end, kind in spans
        ]
    }
    with page_of(phone, ScriptedPredictor("tagging", ("text",), answer)):
        submit(phone, text=text)
        marks = ["𠮷田PER", "北京LOC大学ORG", "北京LOC", "<b>X"]
        assert texts_of(phone, "mark") == marks
        # One that crosses another is in the list only.
        assert len(texts_of(phone, ".rows li")) == len(spans)
        assert fits(phone)


def test_the_answer_is_marked_in_its_text(phone):
    context = "长江全长约六千三百公里。\n\n在上海注入东海。"
    start = context.index("上海")
    answer = {"start": start, "end": start + 2, "probability": 0.9, "answer": "上海"}
    n_best = [("东海", 0.05), ("上海", 0.9), ("", 0.05)]
    answer["n_best"] = [{"text": text, "probability": p} for text, p in n_best]
    predictor = ScriptedPredictor("span_extraction", ("question", "context"), answer)
    with page_of(phone, predictor):
        submit(phone, context=context, question="在哪里入海？")
        assert texts_of(phone, "mark") == ["上海"]
        phone.find("summary").click()
        others = ["东海\n5.0 %", "文章中没有答案\n5.0 %"]
        assert texts_of(phone, ".rows li") == others
        assert phone.find(".text").text.startswith("长江全长约六千三百公里。")
        assert predictor.instances == [{"question": "在哪里入海？", "context": context}]
    nothing = {
        "answer": "",
        "start": None,
        "end": None,
        "probability": 0.6,
        "n_best": [],
    }
    predictor = ScriptedPredictor("span_extraction", ("question", "context"), nothing)
    with page_of(phone, predictor):
        assert "文章中没有答案" in submit(phone)
        assert texts_of(phone, "mark") == []


def test_a_choice(phone):
    fields = ("context", "question", "choices")
    answer = {"choice": 1, "text": "上海", "probabilities": [0.25, 0.75]}
    predictor = ScriptedPredictor("multiple_choice", fields, answer)
    with page_of(phone, predictor):
        submit(phone, choices="青藏高原\n\n 上海\n")
        assert phone.find(".verdict").text == "上海"
        assert texts_of(phone, ".rows li") == ["青藏高原\n25.0 %", "上海\n75.0 %"]
        assert predictor.instances[0]["choices"] == ["青藏高原", "上海"]
        assert "请至少填写两个选项" in submit(phone, choices="上海")


def test_blanks(phone):
    blank = {"tag": "#idiom000001#", "choice": 1, "text": "b"}
    answer = {"blanks": [dict(blank, probabilities=[0.25, 0.75])] * 2}
    predictor = ScriptedPredictor("cloze", ("content", "candidates"), answer)
    with page_of(phone, predictor):
        submit(phone, content="他#idiom000001#", candidates="甲\n乙")
        assert texts_of(phone, ".verdict") == ["乙", "乙"]
        assert predictor.instances[0]["candidates"] == ["甲", "乙"]


def test_labels_that_are_numbers_are_explained(phone):
    predictor = FakePredictor()
    predictor.task_name = "lcqmc"
    with page_of(phone, predictor):
        submit(phone, text_a="花呗", text_b="花呗")
        assert phone.find(".verdict").text == "1 · 意思相同"
        assert texts_of(phone, ".rows li")[1] == "0 · 意思不同\n0.0 %"


def test_other_kinds(phone):
    answer = {
        "labels": ["喜", "惊"],
        "probabilities": {"怒": 0.1, "喜": 0.9, "惊": 0.8},
    }
    with page_of(phone, ScriptedPredictor("multi_label", ("text",), answer)):
        submit(phone)
        assert phone.find(".verdict").text == "喜、惊"
        assert texts_of(phone, ".chosen") == ["喜\n90.0 %", "惊\n80.0 %"]
    predictor = ScriptedPredictor("regression", ("text_a", "text_b"), {"value": 3.25})
    with page_of(phone, predictor):
        submit(phone)
        assert phone.find(".verdict").text == "分数 3.250"


def test_the_nearest_sentence_is_found(phone):
    def embed(instance):
        # All vectors point nearly the same way, as those of real models do.
        return {"vector": [50.0] + [float(instance["text"].count(c)) for c in "退款钱"]}

    predictor = ScriptedPredictor("encoder", ("text",), embed)
    with page_of(phone, predictor):
        lines = ["今天会下雨吗", "如何退款", "快递到了吗"]
        result = submit(phone, query="怎么退款退钱", list="\n".join(lines))
        assert phone.find(".verdict").text == "如何退款"
        assert "减去列表的平均向量" in result
        assert len(texts_of(phone, ".rows li")) == 3
        # The list is not embedded again.
        submit(phone, query="钱")
        assert len(predictor.instances) == 5
        assert fits(phone)


def test_the_page_loads_nothing_from_elsewhere(phone):
    with page_of(phone, FakePredictor()) as service:
        submit(phone)
        names = phone.run("return performance.getEntries().map((entry) => entry.name)")
        addresses = [name for name in names if "://" in name]
        own = "http://127.0.0.1:{}/".format(service.port)
        assert addresses and all(name.startswith(own) for name in addresses)


def test_words_for_masks(phone):
    predictor = ScriptedPredictor("encoder", ("text",), {"vector": [1.0]})
    predictor.has_mask_head = True
    words = [{"token": "气", "probability": 0.75}, {"token": "色", "probability": 0.25}]
    predictor.words = lambda text: [words] * text.count("[MASK]")
    with page_of(phone, predictor):
        assert phone.find("#query") and phone.find("#tab_fill_mask").text
        phone.find("#tab_fill_mask").click()
        submit(phone, masked="天[MASK][MASK]")
        assert texts_of(phone, ".verdict") == ["气", "气"]
        assert texts_of(phone, ".rows li")[:2] == ["气\n75.0 %", "色\n25.0 %"]
        assert fits(phone)
        phone.find("#tab_encoder").click()
        assert phone.find("#query") and not texts_of(phone, ".verdict")
