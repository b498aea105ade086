"""The honest ECPE mode, end to end without a model: MER rows, answers, prompts with predicted emotions, scores."""

import json

import pytest

from swift_plugins.files import write_rows
from tests.conftest import ROOT, in_process


@pytest.fixture
def ecf(tmp_path):
    """Two conversations; `Yes .` is said twice, with different emotions."""
    said = {
        1: [("Ross", "You won !", "surprise"), ("Joey", "Yes .", "joy"), ("Ross", "I lost .", "sadness")],
        2: [("Ross", "Bad news .", "neutral"), ("Joey", "Yes .", "neutral")],
    }
    pairs = {1: [["1_surprise", "1"], ["2_joy", "1"], ["3_sadness", "3"]], 2: []}
    conversations = [
        {
            "conversation_ID": number,
            "conversation": [
                {"utterance_ID": i, "speaker": speaker, "text": text, "emotion": emotion}
                for i, (speaker, text, emotion) in enumerate(lines, 1)
            ],
            "emotion-cause_pairs": pairs[number],
        }
        for number, lines in said.items()
    ]
    folder = tmp_path / "ecf"
    folder.mkdir()
    (folder / "Subtask_2_test.json").write_text(json.dumps(conversations))
    return folder


def build(ecf, out, *options):
    arguments = ["-m", "data_prep.build_amt", "--ecf", ecf, "--split", "test", "--missing-media", "text-only"]
    done = in_process(*arguments, "--out", out, *options)
    if done.returncode:
        return None, done
    return {
        name: [json.loads(line) for line in (out / f"{name}.test.jsonl").read_text().splitlines()]
        for name in ("ecf.mer", "ecf.ecpe")
        if (out / f"{name}.test.jsonl").exists()
    }, done


def answer(rows, responses):
    """Result rows as `swift infer` writes them for `amt:…` rows: with what they are about."""
    for row, response in zip(rows, responses, strict=True):
        messages = [{"role": "user", "content": row["query"]}, {"role": "assistant", "content": response}]
        kept = {key: row[key] for key in ("id", "facts", "videos") if key in row}
        yield {
            "response": response,
            "labels": row["response"],
            "channel": row["channel"],
            "messages": messages,
            **kept,
        }


ANSWERS = ["Surprise.", "Joy.", "Neutral.", "Anger.", "no idea"]  # right, right, missed, a false alarm, unreadable


def test_from_a_mer_pass_to_figures_that_compare_with_semeval(ecf, tmp_path):
    rows, _ = build(ecf, tmp_path / "amt", "--ecf-mer")
    assert [row["id"] for row in rows["ecf.mer"]] == [
        f"ecf/test/dia{d}utt{u}" for d, u in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2))
    ]
    write_rows(tmp_path / "mer.jsonl", answer(rows["ecf.mer"], ANSWERS))
    honest, _ = build(ecf, tmp_path / "honest", "--ecf-emotions", tmp_path / "mer.jsonl")
    targets = [(row["id"], row["channel"], row["response"]) for row in honest["ecf.ecpe"]]
    assert targets == [
        ("ecf/test/dia1utt1", "ecf.ecpe.predicted", "1_surprise,1"),
        ("ecf/test/dia1utt2", "ecf.ecpe.predicted", "2_joy,1"),
        ("ecf/test/dia1utt3", "ecf.ecpe.missed", "3_sadness,3"),  # predicted neutral, but it has a cause
        ("ecf/test/dia2utt1", "ecf.ecpe.predicted", ""),  # neutral, predicted angry: whatever is answered is wrong
    ]
    prompt = honest["ecf.ecpe"][3]["query"]
    assert "1_anger. Ross: Bad news ." in prompt and "2_unknown. Joey: Yes ." in prompt
    assert "3_neutral. Ross: I lost ." in honest["ecf.ecpe"][0]["query"]
    report = json.loads((tmp_path / "honest" / "report.test.json").read_text())
    assert report["fault_counts"]["unparsed_emotion"] == 1

    responses = ["1_surprise,1", "2_joy,2", "3_sadness,3", "1_anger,1"]  # right, wrong, not counted, wrong
    write_rows(tmp_path / "result.jsonl", answer(honest["ecf.ecpe"], responses))
    done = in_process(
        ROOT / "compute_result.py", tmp_path / "result.jsonl", "--json", tmp_path / "scores.json", "--bootstrap", 10
    )
    assert done.returncode == 0, done.stderr
    block = json.loads((tmp_path / "scores.json").read_text())["ecf.ecpe.predicted"]
    assert block["n"] == 4 and "paper" not in block["strict"]
    figures = block["strict"]["semeval"]
    assert (figures["precision"], figures["recall"]) == pytest.approx((1 / 3, 1 / 3))
    own = block["baselines"]["self-cause"]["semeval"]  # of predicted emotions: the missed target has no prediction
    assert (own["precision"], own["recall"]) == pytest.approx((1 / 3, 1 / 3))


def test_the_order_of_the_file_says_nothing(ecf, tmp_path):
    """`Yes .` is said twice and answered differently: the ids tell which answer is whose."""
    rows, _ = build(ecf, tmp_path / "amt", "--ecf-mer")
    results = list(answer(rows["ecf.mer"], ANSWERS))
    built = []
    for name, order in (("one", 1), ("two", -1)):
        write_rows(tmp_path / f"{name}.jsonl", results[::order])
        _, done = build(ecf, tmp_path / name, "--ecf-emotions", tmp_path / f"{name}.jsonl")
        assert done.returncode == 0, done.stderr
        built.append((tmp_path / name / "ecf.ecpe.test.jsonl").read_bytes())
    assert built[0] == built[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "lacks 1 of 5 utterances"),  # a run that was cut off
        (lambda rows: [*rows, rows[0]], "a second answer for ecf/test/dia1utt1"),  # two runs in one file
        (lambda rows: [{**rows[0], "id": "ecf/test/dia9utt1"}, *rows[1:]], "dia9utt1 is no utterance of this split"),
        (lambda rows: [{k: v for k, v in row.items() if k != "id"} for row in rows], "has no id"),
        (lambda rows: [{**row, "channel": "meld.mer"} for row in rows], "no result of channel ecf.mer"),
    ],
)
def test_refusals(ecf, tmp_path, change, message):
    rows, _ = build(ecf, tmp_path / "amt", "--ecf-mer")
    write_rows(tmp_path / "mer.jsonl", change(list(answer(rows["ecf.mer"], ANSWERS))))
    _, done = build(ecf, tmp_path / "honest", "--ecf-emotions", tmp_path / "mer.jsonl")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "honest" / "ecf.ecpe.test.jsonl").exists()


def test_without_the_options_nothing_changes(ecf, tmp_path):
    rows, _ = build(ecf, tmp_path / "amt")
    assert list(rows) == ["ecf.ecpe"]
    assert {row["channel"] for row in rows["ecf.ecpe"]} == {"ecf.ecpe"}
