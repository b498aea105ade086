"""Prompts: the rendered wording is frozen, and a file of one's own reproduces another wording byte for byte."""

from __future__ import annotations

import re

import pytest

from data_prep import prompts
from data_prep.readers.sample import Sample, Utterance
from swift_plugins.files import InputError
from swift_plugins.tasks import TASKS

TALK = (
    Utterance(1, "Ann", "I lost the keys .", "neutral"),
    Utterance(2, "Bob", "Not again !", "anger"),
    Utterance(3, "Ann", "Sorry .", "sadness"),
)
MELD = Sample("meld/train/dia0_utt0", "meld", "train", "That’s great!", speaker="Joey", emotion="joy")
MOSEI = Sample("mosei/train/v/1", "mosei", "train", "I loved it", emotion="happy", score=2.0)
ECF = Sample("ecf/train/dia1utt2", "ecf", "train", "Not again !", "Bob", conversation=TALK, index=2, causes=(1,))
MAFW = Sample("mafw/test/00001", "mafw", "test", "Oh dear", emotions=("anger",), descriptions={"audio": "Loud."})
MC_EIU = Sample("mc_eiu/test/1", "mc_eiu", "test", "Shall we ?", intent="questioning")
OV_MERD = Sample("ov_merd/test/1", "ov_merd", "test", "Oh dear", open_emotions=("tired",))
MOSI = Sample("cmu_mosi/test/1", "cmu_mosi", "test", "I loved it", sentiment="positive")
DFEW = Sample("dfew/test/00001", "dfew", "test", "", emotion="angry")
FIRST = Sample("ecf/train/dia1utt1", "ecf", "train", TALK[0].text, "Ann", conversation=TALK, index=1)

# Frozen: whoever changes configs/prompts.yaml changes what models were trained on, and must change it here too.
RENDERED = [
    (
        MELD,
        "msa",
        "That’s great!\n<sentiment> Is the sentiment of this person positive or negative? "
        "Answer with one of: Positive, Negative.",
    ),
    (
        MELD,
        "mer",
        "That’s great!\n<emotion> Which emotion does this person show? "
        "Answer with one of: Anger, Sadness, Surprise, Disgust, Joy, Neutral, Fear.",
    ),
    (
        MOSEI,
        "mer",
        "I loved it\n<emotion> Which emotion does this person show? "
        "Answer with one of: Anger, Sadness, Surprise, Disgust, Happy, Neutral, Fear.",
    ),
    (
        DFEW,
        "mer",
        "<emotion> Which emotion does this person show? "
        "Answer with one of: happy, sad, neutral, angry, surprise, disgust, fear.",
    ),
    (
        MOSEI,
        "fer",
        "<face> Describe the facial expression of this person: name each visible facial movement, "
        "separated by semicolons.",
    ),
    (
        MOSEI,
        "eri",
        "I loved it\n<reason> Why does this person feel this way? Explain it from the words, the face and the scene.",
    ),
    (
        ECF,
        "ecpe",
        "Conversation:\n1_neutral. Ann: I lost the keys .\n2_anger. Bob: Not again !\n3_sadness. Ann: Sorry .\n\n"
        "Earlier utterances:\n1_neutral. Ann: I lost the keys .\n\nTarget:\n2_anger. Bob: Not again !\n\n"
        "Which utterances cause the emotion of the target? Answer with pairs 2_anger,cause joined by semicolons, "
        "the target itself and later utterances included; answer with nothing if there is no cause.",
    ),
    (
        MAFW,
        "mlmer",
        "Oh dear\n<emotions> Which emotions does this person show? Answer with all that apply, separated by semicolons"
        ": "
        "anger, anxiety, contempt, disappointment, disgust, fear, happiness, helplessness, neutral, sadness, surprise.",
    ),
    (
        MC_EIU,
        "intent",
        "Shall we ?\n<intent> What does this person want to achieve by saying this? Answer with one of: "
        "acknowledging, agreeing, consoling, encouraging, neutral, questioning, suggesting, wishing.",
    ),
    (
        OV_MERD,
        "ov",
        "Oh dear\n<emotions> Which emotions does this person show? Answer with words of your own, separated by commas.",
    ),
    (MAFW, "audio", "<heard> Describe the voice of this person: pitch, pace, loudness and tone."),
    (MAFW, "image", "<seen> Describe what this picture shows of the person's feelings."),
    (
        MAFW,
        "think",
        "Oh dear\n<think> Which emotion does this person show? Think first, then answer with one of: "
        "anger, anxiety, contempt, disappointment, disgust, fear, happiness, helplessness, neutral, sadness, surprise. "
        "Write <think>your reasons</think><answer>the label</answer>.",
    ),
    (
        MOSI,
        "think.three",
        "I loved it\n<think> Is the sentiment of this person positive, neutral or negative? Think first, then answer "
        "with one of: Neutral, Negative, Positive. Write <think>your reasons</think><answer>the label</answer>.",
    ),
    (
        MAFW,
        "think.multi",
        "Oh dear\n<think> Which emotions does this person show? Think first, then answer with all that apply: "
        "anger, anxiety, contempt, disappointment, disgust, fear, happiness, helplessness, neutral, sadness, surprise. "
        "Write <think>your reasons</think><answer>the labels</answer>.",
    ),
]


@pytest.mark.parametrize(("sample", "task", "text"), RENDERED, ids=[f"{s.dataset}.{t}" for s, t, _ in RENDERED])
def test_rendered_prompts_are_frozen(sample, task, text):
    task, _, part = task.partition(".")
    assert prompts.load().query(sample, task, part and f"{task}_{part}", part) == text
    assert not set(re.findall("<[a-z]+>", text)) & {"<image>", "<video>", "<audio>"}, "where ms-swift would put media"


def test_every_task_has_a_frozen_prompt():
    assert {task.partition(".")[0] for _, task, _ in RENDERED} == TASKS.keys()


def test_first_utterance_has_no_candidates():
    assert "Earlier utterances:\n\n\nTarget:" in prompts.load().query(FIRST, "ecpe")


def test_system_turn_is_frozen():
    assert prompts.load().system == "You are an sentiment and emotion analysis expert."


OTHER = """
system: Sys
tasks:
  msa: "  {transcript}{{x}}\\t{identifier}\\r\\n "
  mer: "<video>{transcript}"
  meld.mer: "{speaker} says '{transcript}' [{labels}]\\u3000"
  fer: "F"
  eri: "E"
  ecpe: "{conversation}||{candidates}||{target}||{index}/{emotion}"
formats:
  line: "<{index}|{emotion}|{speaker}|{text}>"
  candidate: "{index}"
  target: "{text}!"
  separator: " ~ "
  labels_separator: "/"
"""


def test_another_wording_byte_for_byte(tmp_path):
    path = tmp_path / "prompts.yaml"
    path.write_text(OTHER, encoding="utf-8")
    wording = prompts.load(path)
    assert wording.query(MELD, "msa") == "  That’s great!{x}\t<sentiment>\r\n "
    assert wording.query(MELD, "mer").startswith("Joey says 'That’s great!' [Anger/Sadness/")
    assert wording.query(MELD, "mer").endswith("]\u3000")
    assert wording.query(MOSEI, "mer") == "<video>I loved it"
    assert wording.query(ECF, "ecpe") == (
        "<1|neutral|Ann|I lost the keys .> ~ <2|anger|Bob|Not again !> ~ <3|sadness|Ann|Sorry .>"
        "||1||Not again !!||2/anger"
    )


def test_a_file_of_one_task_keeps_the_others(tmp_path):
    path = tmp_path / "prompts.yaml"
    path.write_text('tasks: {mer: "{transcript}?"}')
    own, default = prompts.load(path), prompts.load()
    assert own.query(MELD, "mer") == "That’s great!?"
    assert (own.query(ECF, "ecpe"), own.system) == (default.query(ECF, "ecpe"), default.system)


def test_braces_in_a_transcript_stay():
    sample = Sample("meld/train/dia0_utt1", "meld", "train", "a {transcript} b}", emotion="joy")
    assert prompts.load().query(sample, "mer").startswith("a {transcript} b}\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{transcript}{{x}}", "{nonsense}"), "tasks.msa: no field {nonsense} here"),
        (("{transcript}{{x}}", "{conversation}"), "no field {conversation} here"),  # ECPE's only
        (("{transcript}{{x}}", "{transcript.__class__}"), "no field {transcript.__class__} here"),
        (("{transcript}{{x}}", "{transcript!r}"), "no field {transcript} here"),
        (("{transcript}{{x}}", "{"), "tasks.msa: "),
        (("  eri:", "  xyz:"), "tasks: xyz is not a task"),
        (("  meld.mer:", "  meld.xyz:"), "meld.xyz is not a task"),
        (("  separator:", "  joiner:"), "formats.joiner: unknown key"),
        (("system:", "sytem:"), "sytem: unknown key"),
        (("system: Sys", "["), "is not YAML"),
        (('fer: "F"', "fer: 5"), "tasks.fer: Input should be a valid string"),
    ],
)
def test_faulty_prompts_file(tmp_path, change, message):
    path = tmp_path / "prompts.yaml"
    path.write_text(OTHER.replace(*change), encoding="utf-8")
    with pytest.raises(InputError) as error:
        prompts.load(path)
    assert message in str(error.value) and str(path) in str(error.value)
