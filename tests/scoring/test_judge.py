"""Open answers judged over a local endpoint that is slow, fails, cuts off and replies badly; runs that are killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="requirements/judge.txt is not installed")
pytest.importorskip("json_repair", reason="requirements/judge.txt is not installed")

from internvl_chat.__main__ import main
from internvl_chat.choices import JUDGEMENTS
from internvl_chat.contracts import UserError
from internvl_chat.scoring.answer_files import read_answers
from internvl_chat.scoring.judge import JudgeSettings, judge_answers, score_judgements
from internvl_chat.scoring.judge_questions import QUESTIONS, Verdict
from tests.scoring.fake_judge import KEY, FakeJudge

QA = QUESTIONS["qa"]


def qa_file(folder: Path, number: int) -> Path:
    """Answers to judge; every fifth is wrong."""
    path = folder / "answers.jsonl"
    items = [
        {
            "id": f"q{n}",
            "question": f"What is {n}?",
            "answer": "right",
            "pred": f"{'wrong' if n % 5 == 4 else 'right'} {n}",
        }
        for n in range(number)
    ]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def verdict_of(answer: str) -> str:
    return '{"pred": "no", "score": 1}' if answer.startswith("wrong") else '{"pred": "yes", "score": 4.5}'


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.05)


@pytest.mark.process
def test_a_run_that_is_killed_five_times_judges_each_of_300_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def reply(answer: str, tries: int) -> tuple[int, str]:
        number = int(answer.split()[-1])
        if number % 37 == 5 and tries == 1:
            return (500, 0, 429)[number % 3], "later"
        return 200, "no idea" if number == 77 else verdict_of(answer)

    path, out = qa_file(tmp_path, 300), tmp_path / "qa.json"
    with FakeJudge(reply, delay_s=0.02).running() as judge:
        argv = [
            "score-answers",
            str(path),
            "--as",
            "qa",
            "--out",
            str(out),
            "--judge_model",
            "fake",
            "--in_flight",
            "4",
        ]
        argv += ["--api_base", judge.api_base, "--prices", "2,10"]
        progress = out.with_suffix(".progress")
        for kill in range(1, 6):
            process = multiprocessing.get_context("fork").Process(target=main, args=(argv,))
            process.start()
            while (progress.stat().st_size if progress.exists() else 0) < kill * 8000:
                time.sleep(0.002)
            process.kill()
            process.join()
        assert not out.exists()
        assert main(argv) == 0
    result = json.loads(out.read_text())
    assert (result["answers"], result["parsed"], result["failed"], result["unparsed"]) == (300, 299, 0, ["q77"])
    assert result["accuracy"] == pytest.approx(239 / 300) and result["of_parsed"]["accuracy"] == pytest.approx(
        239 / 299
    )
    assert result["mean_score"] == pytest.approx((239 * 4.5 + 60) / 300)
    assert result["accuracy_interval"]["low"] < 239 / 300 < result["accuracy_interval"]["high"]
    assert (result["tokens_read"], result["tokens_written"]) == (300 * 90, 300 * 7)
    assert result["cost_dollars"] == pytest.approx(300 * (90 * 2 + 7 * 10) / 1e6)
    entries = [json.loads(line) for line in progress.read_text().splitlines()]
    assert len(entries) == len({entry["key"] for entry in entries}) == 300
    # What was in flight when it was killed is asked about again, nothing else is.
    assert sum(judge.done.values()) <= 300 + 5 * 4
    said = capfd.readouterr()
    assert not any(KEY in text for text in [said.out, said.err, *(file.read_text() for file in tmp_path.iterdir())])


@pytest.mark.parametrize("status", [500, 429, 0])
def test_an_endpoint_that_fails_is_tried_again_and_the_answer_kept_for_later(tmp_path: Path, status: int) -> None:
    lines = read_answers(qa_file(tmp_path, 6), QA.fields)
    with FakeJudge(
        lambda answer, tries: (status, "busy") if answer == "right 2" else (200, verdict_of(answer))
    ).running() as judge:
        settings = JudgeSettings("fake", judge.api_base, in_flight=1, retries=2)
        result = judge_answers(lines, QA, settings, tmp_path / "p")
        assert judge.asked["right 2"] == 3 and list(result.failed) == [2]
        scores = score_judgements(lines, QA, result, settings)
        assert (scores.failed, scores.parsed, scores.accuracy) == (1, 5, pytest.approx(4 / 6))
        judge.reply = lambda answer, tries: (200, verdict_of(answer))
        assert not judge_answers(lines, QA, settings, tmp_path / "p").failed
        assert sum(judge.asked.values()) == 5 + 3 + 1


def test_a_slow_judge_is_given_up_after_its_time(tmp_path: Path) -> None:
    lines = read_answers(qa_file(tmp_path, 1), QA.fields)
    with FakeJudge(lambda answer, tries: (200, verdict_of(answer)), delay_s=0.4).running() as judge:
        settings = JudgeSettings("fake", judge.api_base, retries=1, timeout_s=0.1)
        assert "timed out" in judge_answers(lines, QA, settings, tmp_path / "p").failed[0]
        time.sleep(0.5)


def test_an_endpoint_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    lines = read_answers(qa_file(tmp_path, 40), QA.fields)
    with FakeJudge(lambda answer, tries: (500, f"down, {KEY}")).running() as judge:
        with pytest.raises(UserError, match="failed 8 times in a row") as error:
            judge_answers(lines, QA, JudgeSettings("fake", judge.api_base, in_flight=2, retries=0), tmp_path / "p")
        assert KEY not in str(error.value) and "$OPENAI_API_KEY" in str(error.value)
        assert sum(judge.asked.values()) < 20


def test_what_is_under_way_when_a_run_ends_is_kept(tmp_path: Path) -> None:
    lines = read_answers(qa_file(tmp_path, 4), QA.fields)

    def reply(answer: str, tries: int) -> tuple[int, str]:
        if answer == "right 0" and tries == 1:
            return 403, "not now"
        time.sleep(0.3)
        return 200, verdict_of(answer)

    with FakeJudge(reply).running() as judge:
        settings = JudgeSettings("fake", judge.api_base, in_flight=4)
        with pytest.raises(UserError, match="not now"):
            judge_answers(lines, QA, settings, tmp_path / "p")
        assert len(judge_answers(lines, QA, settings, tmp_path / "p").judged) == 4
        assert judge.asked == {"right 0": 2, "right 1": 1, "right 2": 1, "right 3": 1}


def test_a_key_that_is_refused_is_told_without_showing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = read_answers(qa_file(tmp_path, 3), QA.fields)
    monkeypatch.setenv("OTHER_KEY", "sk-refused")
    with FakeJudge(lambda answer, tries: (200, "")).running() as judge:
        settings = JudgeSettings("fake", judge.api_base, key_variable="OTHER_KEY")
        with pytest.raises(UserError, match=r"refuses requests: .*wrong key \$OTHER_KEY"):
            judge_answers(lines, QA, settings, tmp_path / "p")
    monkeypatch.delenv("OTHER_KEY")
    with pytest.raises(UserError, match="environment variable OTHER_KEY"):
        judge_answers(lines, QA, settings, tmp_path / "p")


def test_answers_that_were_not_given_are_not_asked_about_and_count(tmp_path: Path) -> None:
    path = qa_file(tmp_path, 3)
    path.write_text(path.read_text() + '{"question": "What?", "answer": "right"}\n' + path.read_text().splitlines()[0])
    lines = read_answers(path, QA.fields)
    with FakeJudge(lambda answer, tries: (200, verdict_of(answer))).running() as judge:
        settings = JudgeSettings("fake", judge.api_base)
        result = judge_answers(lines, QA, settings, tmp_path / "p")
        scores = score_judgements(lines, QA, result, settings)
        assert (scores.answers, scores.not_answered, scores.accuracy) == (5, 1, 0.8)
        assert judge.asked["right 0"] == 2, "two equal answers are two"
        judge_answers(lines[::-1], QA, settings, tmp_path / "p")
        assert sum(judge.asked.values()) == 4, "their order does not matter"


@pytest.mark.parametrize(
    "sent", [b"<html>log in</html>", b"{no json", b"[]", b'{"error": {"message": "out of money"}}', b'{"choices": []}']
)
def test_what_is_no_completion_is_no_judgement_and_asked_again(tmp_path: Path, sent: bytes) -> None:
    lines = read_answers(qa_file(tmp_path, 3), QA.fields)
    with FakeJudge(lambda answer, tries: (200, sent if answer == "right 1" else verdict_of(answer))).running() as judge:
        settings = JudgeSettings("fake", judge.api_base)
        result = judge_answers(lines, QA, settings, tmp_path / "p")
        assert result.failed == {1: f"it sent no chat completion, but {sent.decode()}"} and len(result.judged) == 2
        judge.reply = lambda answer, tries: (200, verdict_of(answer))
        assert len(judge_answers(lines, QA, settings, tmp_path / "p").judged) == 3


def test_an_answer_that_is_refused_does_not_keep_the_others_from_being_judged(tmp_path: Path) -> None:
    lines = read_answers(qa_file(tmp_path, 30), QA.fields)
    with FakeJudge(
        lambda answer, tries: (400, "filtered") if answer == "right 2" else (200, verdict_of(answer))
    ).running() as judge:
        result = judge_answers(lines, QA, JudgeSettings("fake", judge.api_base, in_flight=1), tmp_path / "p")
    assert list(result.failed) == [2] and "filtered" in result.failed[2] and len(result.judged) == 29


def test_nothing_judged_is_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = qa_file(tmp_path, 2), tmp_path / "o.json"
    argv = ["score-answers", str(path), "--as", "qa", "--judge_model", "fake", "--out", str(out), "--retries", "0"]
    assert main([*argv, "--api_base", "http://127.0.0.1:9/v1"]) == 1
    said = capsys.readouterr().err
    assert "Connection refused" in said and "no answer could be judged" in said and not out.exists()


@pytest.mark.parametrize("base", ["127.0.0.1:8000/v1", "localhost", "http:/v1"])
def test_an_endpoint_must_be_a_url(tmp_path: Path, base: str) -> None:
    lines = read_answers(qa_file(tmp_path, 1), QA.fields)
    with pytest.raises(UserError, match=f"--api_base {base}: expected a URL"):
        judge_answers(lines, QA, JudgeSettings("fake", base), tmp_path / "p")


@pytest.mark.parametrize("key", ["sk-abc\n", "sk abc", "sk-ключ"])
def test_a_key_that_no_request_can_carry_is_told_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    lines = read_answers(qa_file(tmp_path, 1), QA.fields)
    with pytest.raises(UserError, match="OPENAI_API_KEY holds a space") as error:
        judge_answers(lines, QA, JudgeSettings("fake", "http://127.0.0.1:9/v1"), tmp_path / "p")
    assert key not in str(error.value)


def test_an_endpoint_with_a_password_in_it_is_refused(tmp_path: Path) -> None:
    lines = read_answers(qa_file(tmp_path, 1), QA.fields)
    with pytest.raises(UserError, match="--api_base holds a name or a password") as error:
        judge_answers(lines, QA, JudgeSettings("fake", "http://me:secret@127.0.0.1:9/v1"), tmp_path / "p")
    assert "secret" not in str(error.value)


def test_a_slash_at_the_end_of_the_endpoint_judges_nothing_twice(tmp_path: Path) -> None:
    lines = read_answers(qa_file(tmp_path, 2), QA.fields)
    with FakeJudge(lambda answer, tries: (200, verdict_of(answer))).running() as judge:
        for base in (judge.api_base, f"{judge.api_base}/"):
            assert len(judge_answers(lines, QA, JudgeSettings("fake", base), tmp_path / "p").judged) == 2
        assert sum(judge.asked.values()) == 2


def test_a_wrong_address_says_what_to_do(tmp_path: Path) -> None:
    lines = read_answers(qa_file(tmp_path, 1), QA.fields)
    with (
        FakeJudge(lambda answer, tries: (404, "no such path")).running() as judge,
        pytest.raises(UserError, match=r"no such path; --api_base mostly ends in /v1.*called 'fake'"),
    ):
        judge_answers(lines, QA, JudgeSettings("fake", judge.api_base), tmp_path / "p")


def test_tokens_that_are_not_told_leave_the_cost_unknown(tmp_path: Path) -> None:
    lines = read_answers(qa_file(tmp_path, 2), QA.fields)
    with FakeJudge(lambda answer, tries: (200, verdict_of(answer))).running() as judge:
        judge.counts = False
        settings = JudgeSettings("fake", judge.api_base, prices=(1, 2))
        scores = score_judgements(lines, QA, judge_answers(lines, QA, settings, tmp_path / "p"), settings)
    assert (scores.parsed, scores.uncounted, scores.cost_dollars) == (2, 2, None)


@pytest.mark.parametrize(
    "flags", [["--prices", "1"], ["--prices", "-1,2"], ["--timeout_s", "0"], ["--timeout_s", "nan"]]
)
def test_prices_and_times_must_be_some(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["score-answers", str(qa_file(tmp_path, 1)), "--as", "qa", *flags])
    assert "expected" in capsys.readouterr().err


def test_replies_that_cannot_be_read_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = qa_file(tmp_path, 2)
    argv = ["score-answers", str(path), "--as", "qa", "--judge_model", "fake", "--out", str(tmp_path / "o.json")]
    with FakeJudge(lambda answer, tries: (200, "four of five")).running() as judge:
        assert main([*argv, "--api_base", judge.api_base]) == 0
    assert f"2 of the judge's 2 replies cannot be read and count as wrong, such as 'four of five' about {path}:1" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"pred": "yes", "score": 4}', Verdict(4, True)),
        ("{'pred': 'no', 'score': 1}", Verdict(1, False)),
        ('```json\n{"pred": "Yes", "score": "4.8"}\n```', Verdict(4.8, True)),
        ('Here it is: {"pred": "yes", "score": 4.8', Verdict(4.8, True)),
        ('{"pred": "yes", "score": 4,}', Verdict(4, True)),
        ('{"pred": "No.", "score": 4}', Verdict(4, False)),
        ('[{"pred": "no", "score": 0}]', Verdict(0, False)),
        ('[{"pred": "no", "score": 0}, {"pred": "yes", "score": 5}]', None),
        ('<think>{"pred": "yes", "score": 5}? No.</think>{"pred": "no", "score": 1}', Verdict(1, False)),
        ('<think>Is it {"pred": "yes", "score": 5}? I doubt', None),
        ('{"pred": "yes", "score": 6}', None),
        ('{"pred": "yes", "score": -1}', None),
        ('{"pred": "yes", "score": true}', None),
        ('{"pred": "yes", "score": "high"}', None),
        ('{"pred": "maybe", "score": 3}', None),
        ('{"score": 3}', None),
        ('{"pred": "yes"}', None),
        ("__import__('os').system('touch /tmp/evaluated')", None),
        ("yes, 4", None),
        ("", None),
        ('{"pred": "yes", "score": NaN}', None),
        ("[" * 500, None),
    ],
)
def test_a_verdict_is_read_and_never_evaluated(reply: str, verdict: Verdict | None) -> None:
    assert QA.verdict(reply) == verdict


def test_every_judgement_asks_for_what_its_files_hold(tmp_path: Path) -> None:
    assert tuple(QUESTIONS) == JUDGEMENTS
    item = {
        "question": "What?",
        "answer": "a dog",
        "pred": "a cat",
        "Q1": "Who?",
        "Q2": "Which?",
        "pred1": "it",
        "pred2": "that",
    }
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(item))
    for name, question in QUESTIONS.items():
        text = "\n".join(message["content"] for message in question.messages(read_answers(path, question.fields)[0]))
        assert "a dog" in text and ("that" if name == "consistency" else "a cat") in text
        assert ("'pred'" in text) == (name == "qa")


def test_the_command_needs_a_judge_and_a_place_for_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score-answers", str(qa_file(tmp_path, 2)), "--as", "qa"]) == 1
    assert "give --judge_model, and --out" in capsys.readouterr().err
    argv = ["score-answers", str(tmp_path / "answers.jsonl"), "--as", "qa", "--judge_model", "fake"]
    assert main([*argv, "--out", str(tmp_path / "qa.progress")]) == 1
    assert "is where what was judged is kept" in capsys.readouterr().err


def test_region_descriptions_get_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"video_name": "v1", "groundtruth": "a red cup", "pred": "a cup"}\n')
    with FakeJudge(lambda answer, tries: (200, '{"score": 3}')).running() as judge:
        argv = [
            "--as",
            "appearance",
            "--judge_model",
            "fake",
            "--api_base",
            judge.api_base,
            "--out",
            str(tmp_path / "o.json"),
        ]
        assert main(["score-answers", str(path), *argv]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["mean_score"], result["accuracy"], result["judge"]["model"]) == (3, None, "fake")
    assert result["dates"] and "Correct answer: ..." in result["judge"]["prompt"][1]["content"]
    assert os.environ["OPENAI_API_KEY"] not in (tmp_path / "o.json").read_text()
