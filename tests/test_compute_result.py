"""compute_result.py as a user runs it: real files, exit status, one line of error."""

import gzip
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT, in_process, process

SCORING = Path(os.environ.get("EMOVERSE_SHARED", ROOT.parent / "shared")) / "data" / "scoring"


def run(*arguments, **environment):
    """With settings in the environment, some of which are read once, in a process of its own."""
    return (process if environment else in_process)(ROOT / "compute_result.py", *arguments, **environment)


def score(*arguments, folder):
    """The JSON of a run that must succeed."""
    done = run(*arguments, "--json", folder / "scores.json")
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def refused(*arguments):
    """The one line on stderr of a run that must be refused."""
    done = run(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def row(response, labels, channel="meld.mer", number=0, **more):
    return {"response": response, "labels": labels, "channel": channel, "videos": [f"dia{number}_utt0.mp4"], **more}


@pytest.fixture
def write(tmp_path):
    def write_(rows, name="result.jsonl", end="\n"):
        path = tmp_path / name
        path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + end, encoding="utf-8")
        return path

    return write_


@pytest.mark.skipif(not SCORING.is_dir(), reason=f"no reference scores in {SCORING}")
@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("ecpe_self", "ecf.ecpe"),
        ("ecpe_self_prev", "ecf.ecpe"),
        ("ecpe_noisy", "ecf.ecpe"),
        ("meld_mer_noisy", "meld.mer"),
        ("mosei_msa_noisy", "mosei.msa"),
    ],
)
def test_every_reference_number(name, channel, tmp_path):
    expected = json.loads((SCORING / "expected.json").read_text())[name]
    block = score(SCORING / f"{name}.jsonl", folder=tmp_path)[channel]
    assert block["n"] == expected.pop("rows")
    assert block.get("n_non0") == expected.pop("nonzero", None)
    expected.pop("empty_gold", None)
    protocols = {key: expected.pop(key) for key in ("paper", "semeval") if key in expected}
    for reading in ("strict", "lenient"):
        figures = block[reading]
        assert {key: figures[key] for key in expected} == pytest.approx(expected, abs=1e-6)
        for protocol, numbers in protocols.items():
            tolerance = 1e-4 if protocol == "paper" else 1e-6
            assert {key: figures[protocol][key] for key in numbers} == pytest.approx(numbers, abs=tolerance)


@pytest.mark.skipif(not SCORING.is_dir(), reason=f"no reference scores in {SCORING}")
def test_ecpe_baselines_are_the_reference_baselines(tmp_path):
    expected = json.loads((SCORING / "expected.json").read_text())
    baselines = score(SCORING / "ecpe_noisy.jsonl", folder=tmp_path)["ecf.ecpe"]["baselines"]
    for name, reference in (("self-cause", "ecpe_self"), ("self + previous", "ecpe_self_prev")):
        assert baselines[name]["paper"]["f1"] == pytest.approx(expected[reference]["paper"]["f1"], abs=1e-4)
        assert baselines[name]["semeval"]["f1"] == pytest.approx(expected[reference]["semeval"]["f1"], abs=1e-6)


def test_readings_unparsed_and_signatures(write, tmp_path):
    path = write([row("Joy.", "Joy."), row("it is JOY", "Joy.", number=1), row("nothing", "Anger.", number=2)])
    done = run(path, "--json", tmp_path / "o.json")
    block = json.loads((tmp_path / "o.json").read_text())["meld.mer"]
    assert (block["n"], block["unparsed"], block["unparsed_lenient"]) == (3, 2, 1)
    assert block["strict"]["accuracy"] == pytest.approx(1 / 3)
    assert block["lenient"]["accuracy"] == pytest.approx(2 / 3)
    assert block["baselines"]["majority"]["accuracy"] == pytest.approx(2 / 3)
    assert "meld.mer|protocol:labels|reading:strict|n:3|unparsed:2|version:" in done.stdout
    assert f"unparsed: {path}:2: 'it is JOY'" in done.stdout


def test_zero_rows_count_in_their_channel(write, tmp_path):
    blocks = score(
        write(
            [
                row("Positive.", "Positive.", "mosei.msa.zero", 1),
                row("Negative.", "Positive.", "mosei.msa", 2),
                row("Negative.", "Negative.", "mosei.msa", 3),
            ]
        ),
        folder=tmp_path,
    )
    assert list(blocks) == ["mosei.msa"]
    assert (blocks["mosei.msa"]["n"], blocks["mosei.msa"]["n_non0"]) == (3, 2)
    assert blocks["mosei.msa"]["strict"]["acc2_has0"] == pytest.approx(2 / 3)
    assert blocks["mosei.msa"]["strict"]["acc2_non0"] == pytest.approx(1 / 2)


def test_zero_rows_alone_are_scored_too(write, tmp_path):
    block = score(write([row("Positive.", "Positive.", "mosei.msa.zero")]), folder=tmp_path)["mosei.msa"]
    assert (block["n_non0"], block["strict"]["acc2_has0"], block["strict"]["acc2_non0"]) == (0, 1.0, 0.0)


def test_scores_as_answers_bring_mae_and_correlation(write, tmp_path):
    rows = [
        row(f"{value:.1f}", f"{value + 0.5:.1f}", "mosei.msa", number) for number, value in enumerate((-2, 0.2, 1.4))
    ]
    figures = score(write(rows), folder=tmp_path)["mosei.msa"]["strict"]
    assert figures["mae"] == pytest.approx(0.5)
    assert figures["corr"] == pytest.approx(1)
    assert {"acc7", "acc2_has0", "acc2_non0"} <= figures.keys()


def test_other_label_sets(write, tmp_path):
    blocks = score(
        write([row("happy", "happy", "dfew.mer"), row("worried", "worried", "mer2023.mer")]), folder=tmp_path
    )
    assert blocks["dfew.mer"]["strict"]["uar"] == blocks["mer2023.mer"]["strict"]["weighted_f1"] == 1


def test_aus_and_reasons(write, tmp_path):
    blocks = score(
        write(
            [
                row("cheeks pushed up under the eyes", "cheeks raised; lips tightened", "mosei.fer", 1),
                row("He is happy, he smiles.", "He is happy because he won.", "mosei.eri", 2),
            ]
        ),
        folder=tmp_path,
    )
    assert blocks["mosei.fer"]["strict"]["f1"] == pytest.approx(2 / 3)  # another phrase of the same AU is right
    assert blocks["mosei.eri"]["strict"]["label_agreement"] == 1
    assert 0 < blocks["mosei.eri"]["strict"]["rouge_l"] < 1


def test_phrases_of_another_facs_file(write, tmp_path):
    facs = tmp_path / "facs.yaml"
    facs.write_text("aus: {AU06: {name: cheek raiser, phrases: [des joues relevées]}}", encoding="utf-8")
    path = write([row("Des joues relevées.", "des joues relevées", "mosei.fer")])
    assert "AMT_FACS" in refused(path)
    done = run(path, "--json", tmp_path / "o.json", AMT_FACS=str(facs))
    assert done.returncode == 0, done.stderr
    block = json.loads((tmp_path / "o.json").read_text())["mosei.fer"]
    assert (block["unparsed"], block["lenient"]["f1"]) == (1, 1)


def test_facts_tell_conversations_apart_whatever_the_prompt_says(write, tmp_path):
    def ecpe(response, labels, dialogue, index, emotion, **more):
        facts = {"dialogue": f"ecf/test/dia{dialogue}", "index": index, "emotion": emotion, **more}
        identity = f"ecf/test/dia{dialogue}utt{index}"
        return {"response": response, "labels": labels, "channel": "ecf.ecpe", "id": identity, "facts": facts}

    rows = [
        ecpe("2_anger,1", "1_joy,1", 1, 1, "joy", previous=None),
        ecpe("1_joy,1", "2_anger,1", 1, 2, "anger", previous=1),
        ecpe("1_joy,1", "", 2, 1, "joy"),
    ]
    block = score(write(rows), folder=tmp_path)["ecf.ecpe"]
    # semeval pools the two rows of the first conversation: each holds the other's pair; the third row is wrong
    assert block["strict"]["semeval"]["precision"] == pytest.approx(2 / 3)
    assert block["strict"]["semeval"]["recall"] == 1
    assert block["strict"]["paper"]["f1"] == 0
    own = block["baselines"]["self-cause"]["semeval"]  # the facts tell the empty target's emotion
    assert (own["precision"], own["recall"]) == pytest.approx((1 / 3, 1 / 2))
    both = block["baselines"]["self + previous"]["semeval"]
    assert (both["precision"], both["recall"]) == pytest.approx((2 / 4, 1))


def test_rows_join_the_results_of_others_exactly_or_not_at_all(write, tmp_path):
    def result(query, response="1_joy,1", labels="1_joy,1"):
        messages = [{"role": "user", "content": query}, {"role": "assistant", "content": response}]
        return {"response": response, "labels": labels, "channel": "ecf.ecpe", "messages": messages}

    def built(query, dialogue):
        facts = {"dialogue": f"ecf/test/dia{dialogue}", "index": 1, "emotion": "joy"}
        identity = f"ecf/test/dia{dialogue}utt1"
        return {"id": identity, "channel": "ecf.ecpe", "query": query, "response": "1_joy,1", "facts": facts}

    results = write([result("first"), result("second")])
    rows = write([built("first", 1375), built("second", 1376)], "amt.jsonl")
    submission = tmp_path / "submission.json"
    assert "--rows" in refused(results, "--semeval-submission", submission)
    assert not submission.exists()
    assert "no baselines: 2 rows do not say" in run(results).stdout
    assert "report.test.json" in refused(results, "--semeval-submission", submission, "--rows", rows)
    dialogues = [f"ecf/test/dia{number}" for number in (1376, 1375, 1380)]
    (tmp_path / "report.test.json").write_text(json.dumps({"dialogues": {"ecf": dialogues}}))
    assert run(results, "--semeval-submission", submission, "--rows", rows).returncode == 0
    assert json.loads(submission.read_text()) == [  # in the owners' order, without a target too
        {"conversation_ID": 1376, "emotion-cause_pairs": [["1_joy", "1"]]},
        {"conversation_ID": 1375, "emotion-cause_pairs": [["1_joy", "1"]]},
        {"conversation_ID": 1380, "emotion-cause_pairs": []},
    ]
    assert "is the answer to none of the AMT rows" in refused(write([result("third")]), "--rows", rows)
    twice = write([built("first", 1375), built("first", 1376)], "twice.jsonl")
    assert "could be the answer to 2 AMT rows with the same words" in refused(write([result("first")]), "--rows", twice)


def test_ms_swift_2_rows_and_gz(write, tmp_path):
    rows = [{"response": "Joy.", "label": "Joy.", "query": "<image>Oh.", "history": [], "images": ["a.png"]}]
    path = tmp_path / "old.jsonl.gz"
    path.write_bytes(gzip.compress(write(rows).read_bytes()))
    assert score(path, "--task", "meld.mer", folder=tmp_path)["meld.mer"]["strict"]["accuracy"] == 1


def test_intervals_are_seeded(write, tmp_path):
    path = write([row("Joy." if i % 3 else "Fear.", "Joy.", number=i) for i in range(60)])
    first = score(path, "--bootstrap", 200, folder=tmp_path)["meld.mer"]
    low, high = first["intervals"]["strict"]["accuracy"]
    assert low < first["strict"]["accuracy"] < high
    assert first["bootstrap"]["units"] == "dialogues"
    assert score(path, "--bootstrap", 200, folder=tmp_path)["meld.mer"] == first


def test_published_figures_and_forgetting(write, tmp_path):
    before = write([row("Joy.", "Joy."), row("Positive.", "Positive.", "mosei.msa", 9)], "before.jsonl")
    now = write([row("Fear.", "Joy.")], "now.jsonl")
    done = run(now, "--before", before, "--compare", "emoverse-4b", "--json", tmp_path / "o.json")
    assert done.returncode == 0, done.stderr
    assert "67.28" in done.stdout and "emoverse-4b" in done.stdout
    assert "n 1, published n 2,610: NOT the same rows" in done.stdout
    assert "100.00 →   0.00" in done.stdout and "-100.00" in done.stdout
    assert "mosei.msa" in done.stdout and "only before" in done.stdout
    block = json.loads((tmp_path / "o.json").read_text())["meld.mer"]
    assert block["published"]["figures"]["accuracy"] == pytest.approx(0.6728)
    assert block["before"]["strict"]["accuracy"] == 1
    assert "emoverse-4b" in refused(now, "--compare", "nobody")


@pytest.mark.parametrize(
    ("rows", "message", "reason"),
    [
        ([""], "no row to score", "empty file"),
        (["not json"], "result.jsonl:1: is not JSON", "not JSON"),
        (['{"response": ' + "1" * 5000 + "}"], "result.jsonl:1: is not JSON (number too long)", "a huge number"),
        (["[" * 100_000], "result.jsonl:1: is not JSON (nested too deeply)", "deep nesting"),
        ([row("Joy.", "Joy."), "[1]"], "result.jsonl:2: holds a list", "a row that is no object"),
        ([{"query": "x"}], "result.jsonl:1: is not a result row", "an AMT row by mistake"),
        ([{"response": "Joy.", "labels": "Joy."}], "--task", "no channel"),
        ([row("Joy.", "Joy.", "meld.xyz")], "result.jsonl:1: 'meld.xyz' names no task", "no such channel"),
        ([row("Joy.", "Joy.", "nobody.mer")], "no label set of mer for dataset 'nobody'", "unknown dataset"),
        ([row("Joy.", "Happy.")], "gold answer 'Happy.' is not one of meld.mer", "gold outside the set"),
        ([row("Joy.", ["Joy."])], "is not one of meld.mer", "gold is a list"),
        ([row("Joy.", None)], "has no gold answer", "no gold"),
        ([row("Joy.", "Joy."), row("Fear.", "Joy.")], "result.jsonl:2: is the same row as", "a clip that comes twice"),
        ([row("Joy.", "Joy.", 5)], "channel is not a text, but 5", "channel is a number"),
    ],
)
def test_bad_files(write, rows, message, reason):
    assert message in refused(write(rows)), reason


def test_bad_arguments(write, tmp_path):
    good = write([row("Joy.", "Joy.")])
    assert "no such file" in refused(tmp_path / "none.jsonl")
    assert "names no task" in refused(good, "--task", "meld.xyz")
    assert "--judge-model" in refused(good, "--judge", "http://127.0.0.1:1/v1")


@pytest.mark.parametrize("task", ["meld.mer", "mosei.fer", "mosei.eri", "ecf.ecpe"])
def test_lone_surrogates_and_control_characters(write, tmp_path, task):
    """JSON can hold what UTF-8 cannot: shown escaped, in every output."""
    gold = {"meld.mer": "Joy.", "mosei.fer": "cheeks raised", "mosei.eri": "He won.", "ecf.ecpe": "1_joy,1"}[task]
    messages = [{"role": "user", "content": "\ud800 \x00 \x1b[31m"}]
    path = write([row("\udfff\x00\x1b[31m", gold, task, messages=messages)])
    done = run(path, "--json", tmp_path / "o.json", "--report", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("response", [None, ["Joy."], {"a": 1}, 3, True, "", "Joy.\u2028Joy or fear", "x" * 10_000_000])
def test_odd_responses_are_unparsed(write, tmp_path, response):
    block = score(write([row(response, "Joy.")]), folder=tmp_path)["meld.mer"]
    assert block["unparsed"] == 1
    assert block["strict"]["accuracy"] == 0


def test_thousands_of_pairs_in_one_answer(write, tmp_path):
    answer = ";".join(["1_joy,1"] * 5000)
    block = score(write([row(answer, "1_joy,1", "ecf.ecpe")]), folder=tmp_path)["ecf.ecpe"]
    assert block["strict"]["semeval"]["f1"] == 1
    assert block["strict"]["paper"]["recall"] == 5000  # the paper's script counts duplicates


def test_exclusions_are_counted(write, tmp_path):
    rows = [
        row("Joy.", "Joy."),
        row("Joy.", None, number=1),
        row("Joy.", "Happy.", number=2),
        '{"response": "Joy.", "labels": "J',
    ]
    path = write(rows, end="")
    assert "has no gold answer" in refused(path)
    assert "is not one of" in refused(path, "--exclude", "no-gold")
    assert "cut off" in refused(path, "--exclude", "no-gold", "--exclude", "bad-gold")
    block = score(path, "--exclude", "no-gold", "--exclude", "bad-gold", "--exclude", "truncated", folder=tmp_path)[
        "meld.mer"
    ]
    assert block["n"] == 1
    assert block["excluded"] == {"no-gold": 1, "bad-gold": 1, "truncated": 1}


def test_a_broken_line_inside_a_file_is_not_a_truncated_one(write):
    path = write([row("Joy.", "Joy."), '{"response": "J', row("Joy.", "Joy.", number=1)])
    assert "result.jsonl:2: is not JSON" in refused(path, "--exclude", "truncated")


def test_a_truncated_gz(write, tmp_path):
    path = tmp_path / "cut.jsonl.gz"
    whole = gzip.compress(
        write([row("Joy.", "Joy.", number=i, noise=os.urandom(50).hex()) for i in range(99)]).read_bytes()
    )
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut off" in refused(path)
    block = score(path, "--exclude", "truncated", folder=tmp_path)["meld.mer"]
    assert 0 < block["n"] < 99 and block["excluded"] == {"truncated": 1}


@pytest.mark.parametrize("media", [True, False])
def test_two_runs_in_one_file(write, tmp_path, media):
    """Without clips two rows may hold the same words (`Oh.`), so only a run that starts again is a repetition."""
    words = ["Oh.", "Yes.", "Oh.", "No.", "Hm."]

    def rows(answer):
        for number, text in enumerate(words):
            messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
            videos = {"videos": [f"dia{number}_utt0.mp4"]} if media else {}
            yield {"response": answer, "labels": "Joy.", "channel": "meld.mer", "messages": messages, **videos}

    once = write(list(rows("Joy.")), "once.jsonl")
    assert score(once, folder=tmp_path)["meld.mer"]["n"] == 5
    twice = write([*rows("Fear."), *rows("Joy.")], "twice.jsonl")
    assert "twice.jsonl:6: is the same row as" in refused(twice)
    first = score(twice, "--exclude", "later-duplicates", folder=tmp_path)["meld.mer"]
    last = score(twice, "--exclude", "earlier-duplicates", folder=tmp_path)["meld.mer"]
    assert (first["n"], first["strict"]["accuracy"], first["excluded"]) == (5, 0, {"duplicates": 5})
    assert (last["n"], last["strict"]["accuracy"], last["excluded"]) == (5, 1, {"duplicates": 5})
    killed = write([*rows("Fear."), *list(rows("Joy."))[:3]], "killed.jsonl")
    assert "and so are 2 others" in refused(killed)


def test_two_runs_with_different_prompts_in_one_file(write):
    def rows(wording):
        for number in range(4):
            messages = [{"role": "user", "content": f"{wording} {number}"}]
            yield row("Joy.", "Joy.", number=number, messages=messages)

    assert "result.jsonl:5: is the same row as" in refused(write([*rows("Which emotion?"), *rows("What is felt?")]))


def test_rows_that_share_a_picture_are_not_repeated(write, tmp_path):
    queries = ["a", "b", "c", "d", "e", "f"]
    rows = [row("Joy.", "Joy.", messages=[{"role": "user", "content": query}]) for query in queries]
    assert score(write(rows), folder=tmp_path)["meld.mer"]["n"] == 6


def test_nothing_is_written_when_a_file_is_refused(write, tmp_path):
    refused(write([row("Joy.", "Happy.")]), "--json", tmp_path / "o.json", "--report", tmp_path / "report")
    assert not (tmp_path / "o.json").exists() and not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("overlap", "said"),
    [
        ("no report", "is not known (--built report.train.json tells)"),
        (None, "is not known ("),  # a report of an older version
        ({"ecf": {"meld:test": {"utterances": 2535, "of": 2610}}}, "CONTAMINATED by training on meld:test: ecf rows"),
        (
            {"ecf": {"meld:test": {"utterances": 0, "of": 2610}}},
            "no utterance of meld:test stands in the training rows",
        ),
        ({"ecf": {"ecf:test": {"utterances": 3, "of": 9}}}, "whether the training rows hold meld:test is not known"),
    ],
)
def test_contamination_is_what_the_build_counted(write, tmp_path, overlap, said):
    built = tmp_path / "report.train.json"
    built.write_text(json.dumps({"split": "train", "clips": {}, "overlap": overlap}))
    options = [] if overlap == "no report" else ["--built", built]
    assert said in run(write([row("Joy.", "Joy.")]), *options).stdout


def test_no_contamination_is_claimed_of_clips_without_dialogues(write):
    assert (
        "training rows" not in run(write([row("Positive.", "Positive.", "mosei.msa") | {"videos": ["a.mp4"]}])).stdout
    )


@pytest.fixture
def amt(write, tmp_path):
    """An AMT folder with three MELD test rows, and a result of some of them."""

    def result(*numbers):
        return write(
            [
                {"id": f"meld/test/dia0_utt{i}", "channel": "meld.mer", "labels": "Joy.", "response": "Joy."}
                for i in numbers
            ]
        )

    (tmp_path / "amt").mkdir()
    rows = [{"id": f"meld/test/dia0_utt{i}", "channel": "meld.mer", "query": "?", "response": "Joy."} for i in range(3)]
    built = write(rows, "amt/meld.mer.test.jsonl")
    (built.parent / "report.train.json").write_text('{"split": "train", "clips": {}}')
    return built.parent, result


@pytest.mark.parametrize("how", ["--rows", "--built", "AMT_DATA"])
def test_an_incomplete_run_is_named_and_not_compared(amt, tmp_path, how):
    folder, result = amt
    given = {"--rows": ["--rows", folder / "meld.mer.test.jsonl"], "--built": ["--built", folder / "report.train.json"]}
    options = given.get(how, [])
    environment = {"AMT_DATA": str(folder)} if how == "AMT_DATA" else {}
    whole = run(result(0, 1, 2), *options, **environment).stdout
    assert f"all 3 rows of {folder / 'meld.mer.test.jsonl'}" in whole
    partial = result(0, 2, 7)
    text = "1 of 3 rows are missing (meld/test/dia0_utt1); 1 are no rows (meld/test/dia0_utt7)"
    assert text in run(partial, *options, **environment).stdout
    done = run(partial, *options, "--compare", "emoverse-4b", **environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and text in done.stderr and "--partial" in done.stderr
    assert "67.28" in run(partial, *options, "--compare", "emoverse-4b", "--partial", **environment).stdout


@pytest.mark.parametrize("report", [[], {}, {"split": "test", "clips": {"meld": {}}}, {"split": "train"}])
def test_another_report_never_says_without_ecf(write, tmp_path, report):
    (tmp_path / "other.json").write_text(json.dumps(report))
    refused(write([row("Joy.", "Joy.")]), "--built", tmp_path / "other.json", "--json", tmp_path / "o.json")
    assert not (tmp_path / "o.json").exists()


class Judge(BaseHTTPRequestHandler):
    """A server that knows one model, fails its first chat request, then names an emotion or gives the mark 7 or 9."""

    requests: list

    def do_GET(self):
        self.answer({"data": [{"id": "judge-1", "object": "model"}], "object": "list"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append((self.headers["Authorization"], body))
        if len(self.requests) == 1:
            self.send_error(503)
            return
        asked = body["messages"][0]["content"]
        text = "joy" if "Text:" in asked else "Score: 7" if "two lists" in asked else "Score: 9/10"
        message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        self.answer({"id": "x", "object": "chat.completion", "created": 0, "model": "judge-1", "choices": [message]})

    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.mark.slow
def test_judge_is_named_retried_and_cached(write, tmp_path):
    handler = type("Handler", (Judge,), {"requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    path = write([row("He won.", "He is happy because he won.", "mosei.eri"), row("", "She is sad.", "mosei.eri", 1)])
    arguments = [path, "--judge", url, "--judge-model", "judge-1", "--json", tmp_path / "o.json"]
    try:
        done = run(*arguments, EMOVERSE_JUDGE_API_KEY="secret-key-of-mine")
        assert done.returncode == 0, done.stderr
        assert {authorization for authorization, _ in handler.requests} == {"Bearer secret-key-of-mine"}
        # one failure, the clues, the emotions of both texts, their overlap; the empty answer is not shown to anybody
        assert len(handler.requests) == 5
        assert run(*arguments).returncode == 0
        assert len(handler.requests) == 5  # the second run asked nothing
        assert "serves no model" in refused(path, "--judge", url, "--judge-model", "other")
    finally:
        server.shutdown()
        server.server_close()
    block = json.loads((tmp_path / "o.json").read_text())["mosei.eri"]["judge"]
    assert block["judge"] == "judge-1" and block["scale"] == "1-10"
    assert (block["clue_overlap"], block["label_overlap"]) == ((9 + 1) / 2, (7 + 1) / 2)
    assert "judged by judge-1" in done.stdout
    for written in tmp_path.rglob("*"):
        assert "secret-key-of-mine" not in written.read_text(encoding="utf-8")


def test_help_names_every_exclusion():
    done = run("--help")
    assert done.returncode == 0
    assert "earlier-duplicates" in done.stdout


def ranked(response, labels, top, number):
    """A result row of sentiment whose labels were ranked, with the probability of the answer."""
    shares = {name: top if f"{name}." == response.lower() else 1 - top for name in ("positive", "negative")}
    return row(response, labels, "mosei.msa", number, probabilities=shares)


def test_ranked_labels_say_how_far_their_probabilities_are_right(write, tmp_path):
    pairs = [("Positive.", "Positive.", 0.9), ("Negative.", "Positive.", 0.9), ("Negative.", "Negative.", 0.6)]
    rows = [ranked(*pair, number) for number, pair in enumerate(pairs)]
    done = run(write([*rows, row("Joy.", "Joy.")]), "--json", tmp_path / "s.json", "--report", tmp_path / "page")
    assert done.returncode == 0, done.stderr
    line = "  labels ranked by likelihood, n 3: ECE (15 bins) 40.00, mean top probability 80.00, accuracy 66.67"
    assert line in done.stdout.splitlines()
    blocks = json.loads((tmp_path / "s.json").read_text())
    found = blocks["mosei.msa"]["calibration"]
    assert found["ece"] == pytest.approx((2 * 0.4 + 0.4) / 3) and [bin["n"] for bin in found["bins"]] == [1, 2]
    assert all("|unparsed:0|answers:likelihood|version:" in one for one in blocks["mosei.msa"]["signatures"])
    assert "calibration" not in blocks["meld.mer"] and "answers:" not in "".join(blocks["meld.mer"]["signatures"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert line.strip() in page and page.count('alt="Accuracy by probability in ') == 1
    assert (tmp_path / "page" / "mosei.msa.calibration.png").stat().st_size > 5000

    plain = [{key: value for key, value in one.items() if key != "probabilities"} for one in rows]
    generated = score(write(plain, "plain.jsonl"), folder=tmp_path)["mosei.msa"]
    del blocks["mosei.msa"]["calibration"]
    ours = json.dumps(blocks["mosei.msa"]).replace("|answers:likelihood", "")
    assert ours == json.dumps(generated), "figures are those of the same answers"
    mixed = score(write([*rows[:2], plain[2]], "mixed.jsonl"), folder=tmp_path)["mosei.msa"]
    assert mixed["calibration"]["n"] == 2 and "|answers:likelihood(2 of 3)|" in mixed["signatures"][0]
    done = run(tmp_path / "result.jsonl", "--before", tmp_path / "plain.jsonl")
    assert "mosei.msa: answers were generated and are ranked: not only the model differs" in done.stdout
    kept = score(write([*rows, rows[0]], "twice.jsonl"), "--exclude", "later-duplicates", folder=tmp_path)["mosei.msa"]
    assert kept["calibration"] == found, "rows that are left out take their probabilities with them"


@pytest.mark.parametrize(
    "probabilities, message",
    [
        ([0.5, 0.5], "probabilities is not an object, but [0.5, 0.5]"),
        ({"positive": 0.5}, "probabilities are no numbers that sum to 1, but {'positive': 0.5}"),
        ({"positive": "1"}, "probabilities are no numbers that sum to 1"),
        ({"positive": 1.5, "negative": -0.5}, "probabilities are no numbers that sum to 1"),
        ({"positive": True}, "probabilities are no numbers that sum to 1"),
        ({"positive": float("nan")}, "probabilities are no numbers that sum to 1"),
    ],
)
def test_probabilities_that_are_none(write, probabilities, message):
    path = write([row("Positive.", "Positive.", "mosei.msa", probabilities=probabilities)])
    assert f"{path}:1: {message}" in refused(path)
