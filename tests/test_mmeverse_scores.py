"""MMEVerse's figures as the published scorers print them: emotion wheels, several labels, sentiment, single labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from swift_plugins import wheels
from swift_plugins.files import CONFIGS, read_yaml
from swift_plugins.mmeverse import SETS
from tests.conftest import ROOT, in_process

FIGURES = {"hit": "hit_rate", "mscore": "mscore", "precision": "precision", "recall": "recall", "f": "f"}
THOUGHT = "<think>He frowns.</think>"


@pytest.fixture(scope="module")
def reference(shared) -> Path:
    """The wheels' reference data: what the original code says of every form, and its scores of some rows."""
    folder = shared / "wheels"
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}")
    return folder


def mean(values):
    return sum(values) / len(values)


# Every word of the wheels


def test_every_look_up_is_the_original_one(reference):
    with (reference / "expected_level1.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {row["form"]: wheels.levels(row["form"]) for row in rows}
    expected = {row["form"]: tuple(row[f"wheel{number}"] or None for number in range(1, 6)) for row in rows}
    assert len(rows) * wheels.WHEELS == 36_930
    assert found == expected


def test_every_look_up_through_a_result_file(reference, score):
    """Each form as the answer to itself: right wherever a wheel knows it, out of the figures where none does."""
    with (reference / "expected_level1.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    block, _ = score("ov_merd.ov", [(row["form"], row["form"]) for row in rows])
    unmapped = [sum(not row[f"wheel{number}"] for row in rows) / len(rows) for number in range(1, 6)]
    assert (block["n"], block["unparsed"]) == (7_386, 0)
    assert block["official"]["gold_unmapped"] == pytest.approx(mean(unmapped), abs=1e-9)
    assert [block["official"][name] for name in FIGURES.values()] == pytest.approx([1] * 5, abs=1e-9)


@pytest.mark.parametrize(
    ("word", "levels", "reason"),
    [
        ("fear", ("scared", "happy", "joyful", "genius", "joyful"), "antonym forms: fearless is of fear"),
        ("surprise", ("surprised", "surprised", "powerful", "fear", None), "another emotion on every wheel"),
        ("happy", ("happy", "happy", "joyful", "joy", "powerful"), "the first of its wheel words in the alphabet"),
        ("contempt", (None, "angry", None, None, None), "known to one wheel"),
        ("doubt", ("mad", "angry", "mad", "anger", "mad"), "anger on all"),
        ("shy", (None, None, None, None, "sad"), "known to one wheel"),
        ("sarcastic", ("mad", None, "mad", None, None), "known to two"),
        ("disgust", ("disgusted", "disgusted", None, "disgust", None), "known to three"),
        ("neutral", (None,) * 5, "none of their emotions"),
        (" FURIOUS ", ("mad", "angry", "mad", "anger", "mad"), "case and white space do not matter"),
        ("table", (None,) * 5, "no emotion"),
        ("", (None,) * 5, "nothing"),
    ],
)
def test_look_ups(word, levels, reason):
    assert wheels.levels(word) == levels, reason


# The scores of the original scorers


@pytest.mark.parametrize("number", range(4))
def test_examples_of_the_original_scorer(reference, score, number):
    example = json.loads((reference / "examples.json").read_text(encoding="utf-8"))[number]
    block, _ = score("ov_merd.ov", [(example["pred"][clip], gold) for clip, gold in example["gold"].items()])
    official = block["official"]
    expected = {FIGURES[name]: mean(values) for name, values in example["expected"].items()}
    assert {name: official[name] for name in expected} == pytest.approx(expected, abs=1e-6), example["name"]
    known = mean(example["effective_n"]) / len(example["gold"])
    assert official["gold_unmapped"] == pytest.approx(1 - known, abs=1e-9)
    assert block["official_script"] == "MERTools"


@pytest.mark.parametrize(
    ("scorer", "channel", "names"),
    [
        (
            "multi-label",
            "mafw.mlmer",
            {
                "F1 Score (micro)": "micro_f1",
                "F1 Score (samples)": "samples_f1",
                "Example-based Accuracy (Jaccard)": "jaccard",
                "mAP (mean Average Precision)": "map",
            },
        ),
        (
            "sentiment without neutral",
            "cmu_mosi.msa.three",
            {"Accuracy": "accuracy", "Weighted F1 Score": "weighted_f1"},
        ),
        ("single label", "caer.mer", {"Accuracy": "accuracy", "Weighted F1 Score": "weighted_f1"}),
    ],
)
def test_other_scorers(reference, score, scorer, channel, names):
    """They print four decimals."""
    cases = json.loads((reference / "other_scorers.json").read_text(encoding="utf-8"))
    case = next(case for case in cases if case["scorer"] == scorer)
    rows = [row for row in case["rows"] if row["mode"] == case.get("split", row["mode"])]
    block, _ = score(channel, [(row["response"], row["answer"]) for row in rows])
    found = {name: round(block["official"][ours], 4) for name, ours in names.items()}
    assert found == pytest.approx(case["expected"], abs=1e-6)
    assert block["official_script"] == "MMEVerse"


# Worked by hand


def test_hit_rate_by_hand(score):
    """Four clips; the neutral one leaves, and sad is no candidate of mscore, for no gold label is of it."""
    pairs = [("furious, sad", "angry"), ("sad", "happy"), ("anxious", "worried"), ("calm", "neutral")]
    block, said = score("mer2023.ov", pairs)
    expected = {"hit_rate": 2 / 3, "mscore": 2 / 3, "precision": 0.5, "recall": 2 / 3, "f": 4 / 7}
    assert {name: block["official"][name] for name in expected} == pytest.approx(expected)
    assert (block["official"]["gold_unmapped"], block["official"]["labels_per_answer"]) == (0.25, 1.25)
    assert "1.25 labels per answer (official)" in said
    assert "25.0 % of the rows, mean over the wheels, have a gold answer that a wheel does not know" in said


def test_set_f_by_hand(score):
    pairs = [("furious", "angry, worried"), ("joyful, calm", "happy, excited, surprised"), ("neutral", "sad")]
    block, _ = score("ov_merd.ov", pairs)
    f = [4 / 9, 4 / 9, 0.4, 2 * (2 / 3) * (5 / 18) / (2 / 3 + 5 / 18), 0.4]
    assert f[3] == pytest.approx(0.3922, abs=1e-4)
    assert block["official"]["f"] == pytest.approx(mean(f)) == pytest.approx(0.4162, abs=1e-4)
    assert block["official"]["mscore"] == 0, "golds of several words are no candidates"


def test_several_labels_by_hand(score):
    """Gold anger and fear, then sadness; answers anger and glee, then sadness. Glee is no class, and costs nothing."""
    block, said = score("mafw.mlmer", [("anger; glee", "anger; fear"), ("sadness", "sadness")])
    official = block["official"]
    assert official["micro_f1"] == pytest.approx(2 * 2 / (2 + 3))
    assert official["samples_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert official["jaccard"] == pytest.approx((1 / 2 + 1) / 2, abs=1e-5)
    assert official["map"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert official["invented_per_answer"] == 0.5
    assert "official: 1 labels of answers are none of the gold's, and cost nothing in F1 and mAP" in said
    assert block["strict"]["micro_f1"] == pytest.approx(2 * 1 / (1 + 3)), "strict reads no answer with glee in it"
    assert "invented_per_answer" not in block["strict"]


def test_sentiment_by_hand(score):
    """Gold positive, negative, neutral; answers positive, neutral, neutral: official leaves the neutral gold out."""
    pairs = [("Positive", "Positive"), ("Neutral", "Negative"), ("Neutral", "Neutral")]
    block, said = score("cmu_mosi.msa.three", pairs)
    assert block["official"]["accuracy"] == 0.5 and block["strict"]["accuracy"] == pytest.approx(2 / 3)
    assert "official: without the 1 rows whose gold answer is neutral" in said


def test_sentiment_of_meld_by_hand(score):
    """MMEVerse scores it with the clips whose gold is neutral, as any single label; MELD writes them in lower case."""
    block, said = score(
        "meld.msa.three", [("positive", "Positive."), ("Neutral.", "Neutral."), ("It is bad", "Negative.")]
    )
    assert block["official"]["accuracy"] == pytest.approx(2 / 3) and block["official_script"] == "MMEVerse"
    assert block["strict"]["accuracy"] == pytest.approx(1 / 3) and "whose gold answer is neutral" not in said


def test_capitals_cost_everything_under_official(score):
    """The published script lowers the answer alone; ours does not repeat that, and both are shown."""
    block, _ = score("iemocap.mer", [("Anger", "Anger"), ("Sadness", "Sadness")])
    assert (block["official"]["accuracy"], block["strict"]["accuracy"]) == (0, 1)


# What the hit rate hides

CLIPS = {  # gold labels of the test sets, in clips
    "mer2023": {"angry": 105, "happy": 93, "neutral": 88, "sad": 50, "surprise": 18, "worried": 57},
    "mer2024": {"angry": 163, "happy": 246, "neutral": 201, "sad": 317, "surprise": 83, "worried": 159},
    "iemocap": {"anger": 187, "sadness": 311, "happiness": 612, "neutral": 386},
    "meld": {"anger": 345, "disgust": 68, "fear": 50, "joy": 402, "neutral": 1256, "sadness": 208, "surprise": 281},
}


@pytest.mark.parametrize(
    ("name", "answer", "hit_rate", "mscore"),
    [
        ("mer2023", "angry", 0.3289, 0.22),
        ("mer2024", "sad", 0.3336, 0.22),
        ("iemocap", "happiness", 0.5514, 0.33),
        ("meld", "joy", 0.3358, 0.21),
    ],
)
def test_one_answer_for_all_clips(score, name, answer, hit_rate, mscore):
    golds = [label for label, count in CLIPS[name].items() for _ in range(count)]
    assert len(golds) == SETS[name].published["test"]
    block, said = score(f"{name}.ov", [(answer, gold) for gold in golds])
    assert block["official"]["hit_rate"] == pytest.approx(hit_rate, abs=5e-5)
    everything = block["baselines"]["all labels"]
    assert everything["hit_rate"] == 1 and round(everything["mscore"], 2) == mscore
    assert everything["labels_per_answer"] == len(CLIPS[name])
    assert f"every label has hit rate 100.0, mscore {100 * everything['mscore']:.1f}" in said
    commonest = block["baselines"]["majority"]["hit_rate"]
    assert commonest == pytest.approx(hit_rate, abs=5e-5), "neutral, the commonest of MELD, is in no figure"


# Answers of every kind


@pytest.mark.parametrize(
    ("channel", "gold", "response", "strict", "lenient", "official", "reason"),
    [
        ("mer2023.ov", "angry", "angry", 1, 1, 1, "the word"),
        ("mer2023.ov", "angry", "furious", 1, 1, 1, "another word of the same emotion"),
        ("mer2023.ov", "angry", "['furious', 'sad']", 1, 1, 1, "a list: one of its words is right"),
        ("mer2023.ov", "angry", "The person is angry.", 0, 0, 0, "a sentence gives nothing"),
        ("mer2023.ov", "angry", "angry; sad", 0, 1, 0, "semicolons: the script knows commas only"),
        ("mer2023.ov", "angry", "<think>sad</think>angry", 0, 1, 0, "what was thought is none of the answer"),
        ("mer2023.ov", "angry", "", 0, 0, 0, "empty"),
        ("mer2023.ov", "angry", None, 0, 0, 0, "null"),
        ("mer2023.ov", "angry", 3, 0, 0, 0, "a number"),
        ("mer2023.ov", "angry", ["angry"], 0, 0, 0, "a list that is no text"),
        ("mafw.mlmer", "anger; fear", "fear; anger", 1, 1, 1, "in any order"),
        ("mafw.mlmer", "anger; fear", "Anger, Fear", 0, 1, 1, "case and commas"),
        ("mafw.mlmer", "anger; fear", "Anger and fear.", 0, 1, 0, "the script splits at ; and , only"),
        ("mafw.mlmer", "anger; fear", "['anger', 'fear']", 0, 1, 0, "nor does it know lists"),
        ("mafw.mlmer", "anger; fear", "<think>sad</think>anger; fear", 0, 1, 2 / 3, "one of the two is whole"),
        ("mafw.mlmer", "anger; fear", "", 0, 0, 0, "empty"),
        ("mafw.mlmer", "anger; fear", None, 0, 0, 0, "null"),
        ("mafw.mlmer", "anger; fear", {"a": 1}, 0, 0, 0, "an object"),
        ("mc_eiu.intent", "wishing", "wishing", 1, 1, 1, "the label"),
        ("mc_eiu.intent", "wishing", "WISHING", 0, 1, 1, "in capitals"),
        ("mc_eiu.intent", "wishing", "He is wishing.", 0, 1, 0, "in a sentence"),
        ("mc_eiu.intent", "wishing", "['wishing']", 0, 1, 0, "in a list"),
        ("mc_eiu.intent", "wishing", "", 0, 0, 0, "empty"),
        ("mc_eiu.intent", "wishing", False, 0, 0, 0, "no text"),
        ("cmu_mosi.msa.three", "Negative", "negative", 0, 1, 1, "case"),
        ("cmu_mosi.msa.three", "Negative", "The sentiment is negative.", 0, 1, 0, "in a sentence"),
        ("cmu_mosi.msa.three", "Negative", None, 0, 0, 0, "null"),
        ("mafw.think", f"{THOUGHT}<answer>anger</answer>", "anger", 0, 1, None, "no thought"),
        (
            "mafw.think",
            f"{THOUGHT}<answer>anger</answer>",
            "<think>y</think><answer>anger</answer>",
            1,
            1,
            None,
            "another thought",
        ),
        ("mafw.think", f"{THOUGHT}<answer>anger</answer>", "<think>anger", 0, 0, None, "cut off"),
        ("mafw.think", f"{THOUGHT}<answer>anger</answer>", [], 0, 0, None, "no text"),
        ("bold.think.multi", f"{THOUGHT}<answer>Anger; Fear</answer>", "Fear, Anger", 0, 1, None, "no thought"),
        ("meld.think.three", f"{THOUGHT}<answer>Neutral.</answer>", "neutral", 0, 1, None, "no thought"),
        ("mafw.audio", "A low and shaky voice", "", 0, 0, None, "empty"),
        ("mafw.audio", "A low and shaky voice", "A low and shaky voice", 1, 1, None, "the same words"),
        ("mafw.image", "He frowns.", None, 0, 0, None, "null"),
    ],
)
def test_one_odd_answer(score, channel, gold, response, strict, lenient, official, reason):
    block, _ = score(channel, [(response, gold)])
    assert block["n"] == 1 and block["unparsed"] in (0, 1)
    figure = {"ov": "hit_rate", "mlmer": "micro_f1", "audio": "rouge_l", "image": "rouge_l"}.get(
        channel.split(".")[1], "accuracy"
    )
    figure = "micro_f1" if channel.endswith("multi") else figure
    found = [block[reading].get(figure) for reading in ("strict", "lenient")]
    assert found == pytest.approx([strict, lenient]), reason
    assert block.get("official", {}).get(figure) == (None if official is None else pytest.approx(official)), reason


@pytest.mark.parametrize(
    ("channel", "gold", "message"),
    [
        ("mafw.mlmer", "anger; joy", "gold answer 'anger; joy' is not one of mafw.mlmer"),
        ("caer.mlmer", "anger", "no label set of mlmer for dataset 'caer': it is one of mafw, bold"),
        ("mafw.intent", "wishing", "no label set of intent for dataset 'mafw': it is one of mc_eiu"),
        ("bold.think", f"{THOUGHT}<answer>Anger</answer>", "no label set of think for dataset 'bold'"),
        ("mafw.think", "anger", "gold answer 'anger' is not one of mafw.think"),
        ("ov_merd.ov", "The person is sad.", "gold answer 'The person is sad.' is not one of ov_merd.ov"),
    ],
)
def test_a_gold_answer_that_cannot_be_scored(tmp_path, channel, gold, message):
    path = tmp_path / "result.jsonl"
    path.write_text(json.dumps({"id": "1", "channel": channel, "response": "anger", "labels": gold}) + "\n")
    done = in_process(ROOT / "compute_result.py", path)
    assert done.returncode == 2 and message in done.stderr and f"{path}:1" in done.stderr


# Two protocols


def test_extracted_labels_are_another_protocol(tmp_path):
    """In one file: two blocks, two signatures, and published figures beside the one that they were made with."""
    rows = [
        {"id": f"{channel}/{number}", "channel": channel, "response": answer, "labels": "angry"}
        for channel, answers in (("mer2023.ov", ["sad"] * 4), ("mer2023.ov.extracted", ["furious", "sad"]))
        for number, answer in enumerate(answers)
    ]
    path = tmp_path / "result.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ("--json", tmp_path / "s.json", "--compare", "mmeverse", "--report", tmp_path / "report")
    done = in_process(ROOT / "compute_result.py", path, *options)
    assert done.returncode == 0, done.stderr
    blocks = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    raw, extracted = blocks["mer2023.ov"], blocks["mer2023.ov.extracted"]
    assert (raw["n"], raw["official"]["hit_rate"]) == (4, 0)
    assert (extracted["n"], extracted["official"]["hit_rate"]) == (2, 0.5)
    assert {signature.split("|")[1] for signature in raw["signatures"]} == {"protocol:raw-answer"}
    assert {signature.split("|")[1] for signature in extracted["signatures"]} == {"protocol:extracted"}
    assert raw["published"]["figures"] == {} and extracted["published"]["figures"] == {"hit_rate": 0.5938}
    first, second = done.stdout.split("mer2023.ov.extracted: ", 1)
    assert "59.38" not in first and "of answers themselves no figure was found" in first
    assert "59.38" in second and "AffectGPT: hit_rate 78.54" in second
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for channel in blocks:
        assert f'<section id="{channel}">' in page
    assert "protocol:raw-answer" in page and "protocol:extracted" in page and "<span>hit rate</span>" in page


def test_no_published_figure_stands_beside_another_protocol():
    """MER-UniBench's figures are of labels that a language model read out of answers: of none of our readings."""
    table = read_yaml(CONFIGS / "published.yaml")["mmeverse"]
    about = {"n", "source", "others"}
    assert {channel for channel, entry in table.items() if entry.keys() - about} == {
        f"{name}.ov.extracted" for name in ("mer2023", "mer2024", "iemocap", "meld", "ov_merd")
    }
    for channel, entry in table.items():
        name = channel.split(".")[0]
        published = (
            1241 if name == "iemocap" else SETS[name].published.get("test")
        )  # MER-UniBench's own choice of clips
        assert entry["n"] == published or published is None, channel


@pytest.mark.parametrize("channel", ["cmu_mosi.msa.three", "mosei.msa.three"])
def test_published_sentiment_stands_under_the_table(score, channel):
    gold = "Positive" if channel.startswith("cmu") else "Positive."
    block, said = score(channel, [(gold, gold)], "--compare", "mmeverse")
    assert block["published"]["figures"] == {} and "AffectGPT: weighted_f1" in said
    assert "sentiments read out of answers by Qwen2.5" in said and "NOT the same rows" in said


# Intervals and the page


@pytest.mark.parametrize(
    ("channel", "pairs"),
    [
        ("mer2023.ov", [("angry, sad", "angry"), ("joyful", "happy"), ("calm", "worried"), ("sad", "neutral")]),
        ("ov_merd.ov", [("furious", "angry, worried"), ("joyful, calm", "happy, excited"), ("hm hm hm hm", "sad")]),
        ("mafw.mlmer", [("anger", "anger; fear"), ("fear; sadness", "sadness"), ("?", "fear")]),
        (
            "bold.think.multi",
            [("Fear", f"{THOUGHT}<answer>Fear; Pain</answer>"), ("?", f"{THOUGHT}<answer>Fear</answer>")],
        ),
    ],
)
def test_intervals_cover_the_figures(score, channel, pairs, tmp_path):
    block, _ = score(channel, pairs * 20, "--bootstrap", 100, "--report", tmp_path / "report")
    for reading in ("strict", "lenient"):
        intervals = block["intervals"][reading]
        assert intervals.keys() == block[reading].keys()
        for name, (low, high) in intervals.items():
            assert low - 1e-9 <= block[reading][name] <= high + 1e-9, (reading, name)
    assert any(low < high for low, high in block["intervals"]["lenient"].values())
    again, _ = score(channel, pairs * 20, "--bootstrap", 100)
    assert again["intervals"] == block["intervals"], "seeded"
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert f'<section id="{channel}">' in page and f"{channel}|protocol:" in page


def test_the_page_holds_every_new_channel(tmp_path):
    """Each beside what it is headed by; remarks stand on the page as on the terminal."""
    rows = [
        ("mer2023.ov", "angry", "furious, sad", ["<span>hit rate</span>", "2.00 labels per answer (official)"]),
        ("mafw.mlmer", "anger; fear", "anger; glee", ["<span>micro-F1</span>", "1 labels of answers are none of"]),
        ("mc_eiu.intent", "wishing", "wishing", ["<span>weighted F1</span>"]),
        ("cmu_mosi.msa.three", "Neutral", "Neutral", ["without the 1 rows whose gold answer is neutral"]),
        ("mafw.think", f"{THOUGHT}<answer>anger</answer>", "<think>y</think><answer>fear</answer>", []),
        ("mafw.audio", "A low voice", "A voice", ["<span>ROUGE-L</span>"]),
        ("mafw.image", "He frowns", "She frowns", []),
    ]
    path = tmp_path / "result.jsonl"
    lines = [
        {"id": f"{channel}/{n}", "channel": channel, "response": answer, "labels": gold}
        for n, (channel, gold, answer, _) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    done = in_process(ROOT / "compute_result.py", path, "--report", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for channel, _, _, words in rows:
        assert f'<section id="{channel}">' in page
        assert all(word in page for word in words), channel


def test_beside_another_system_and_an_earlier_run(score, tmp_path):
    """Hit rate and micro-F1 of two results of the same rows: their difference, and what changed."""
    for channel, figure, gold, worse in (
        ("mer2023.ov", "hit_rate", "angry", "sad"),
        ("mafw.mlmer", "micro_f1", "anger; fear", "anger"),
    ):
        score(channel, [(gold, gold)] * 5 + [(worse, gold)] * 5)
        (tmp_path / "result.jsonl").rename(tmp_path / "other.jsonl")
        options = ("--against", tmp_path / "other.jsonl", "--before", tmp_path / "other.jsonl")
        block, said = score(channel, [(gold, gold)] * 10, *options, "--bootstrap", 20)
        beside = block["against"]["figures"][figure]
        assert beside["ours"] == 1 and beside["theirs"] == block["before"]["strict"][figure]
        assert beside["difference"] == pytest.approx(1 - beside["theirs"]) and beside["difference"] > 0
        assert f"{100 * beside['theirs']:.2f} → 100.00" in said
