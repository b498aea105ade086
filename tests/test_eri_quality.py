"""The rules that answers of the two models must keep, and how the clues are read from an answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.eri import quality as eri_quality
from data_prep.eri.config import load

CONFIG = load()
RULES = CONFIG.quality
HAPPY = {"emotion": ("happy",)}
PROMPT = CONFIG.reason.system + "\n" + CONFIG.reason.user


@pytest.mark.parametrize(
    "rule, label, text",
    [
        (None, "happy", "She is happy because she finally got the job that she wanted for so many years."),
        (None, "joy", "He is delighted with the gift and cannot stop smiling at the people around him."),
        # empty, short, long
        ("empty", "happy", ""),
        ("empty", "happy", " … -- !"),
        ("too_short", "happy", "Because of the job."),
        ("too_long", "happy", "She is happy with the job and the people. " * 20),
        # refusals, and words that only look like one
        ("refusal", "happy", "I'm sorry, but I can't help with that."),
        ("refusal", "happy", "I’m sorry, I cannot identify people in pictures, so the emotion is unknown to me."),
        ("refusal", "happy", "As an AI language model I do not feel, yet the person may be glad about the job."),
        ("refusal", "happy", "It is not possible to determine the reason from the words that are given here."),
        ("refusal", "happy", "Unfortunately I do not have enough information about the scene to give the reason."),
        (None, "sadness", "She says 'I am sorry' because she regrets what she has done to her old friend."),
        (None, "surprise", "'I cannot believe it', the man says, and the gift on the table has surprised him."),
        # other languages
        ("other_language", "happy", "La femme est heureuse parce qu'elle a enfin obtenu le travail tant voulu hier."),
        ("other_language", "happy", "Die Frau freut sich, weil sie endlich die ersehnte Stelle bekommen hat."),
        ("other_language", "happy", "La mujer está feliz porque por fin consiguió el trabajo que quería."),
        ("other_language", "happy", "这位女士很高兴，因为她终于得到了她想要的工作。"),
        ("other_language", "happy", "Она счастлива, потому что наконец получила работу, о которой мечтала."),
        # the prompt given back
        ("prompt_copy", "happy", "In two or three sentences, explain why the person feels this way. Draw on it."),
        # another emotion asserted
        ("contradiction", "happy", "The woman is clearly angry about what the others have said to her today."),
        ("contradiction", "happy", "He feels a mix of happiness and fear about the things that are to come."),
        ("contradiction", "neutral", "The emotion is anger, as the raised voice and the tense lips of the man show."),
        ("contradiction", "sadness", "Emotion: anger. The raised voice and the tense lips of the man show it."),
        ("contradiction", "surprise", "Her fear of the dog shows in the wide eyes and in the way she steps back."),
        # another emotion negated, of somebody else, or of a thing
        (None, "happy", "The woman feels joyful, not sad, since her friends came to see her today."),
        (None, "joy", "The man doesn't look angry at all; he is delighted with the gift on the table."),
        (None, "sadness", "She is sad because her father is angry with her and has left the room."),
        (None, "happy", "It is a sad story but she enjoys telling it to the others around the table."),
        (None, "neutral", "The person stays calm, without any anger or sadness in the face or the words."),
        # a label that the table does not know contradicts nothing
        (None, "nostalgia", "The woman is clearly angry about what the others have said to her today."),
    ],
)
def test_quality_of_reasons(rule, label, text):
    found = eri_quality.check("reason", text, "stop", PROMPT, {"emotion": (label,)}, RULES)
    assert (found and found[0]) == rule, found


def test_an_answer_that_was_cut_off_is_too_long():
    text = "She is happy because she finally got the job that she wanted for so many"
    assert eri_quality.check("reason", text, "length", PROMPT, HAPPY, RULES) == ("too_long", "cut off at max_tokens")


@pytest.mark.parametrize(
    "text, character, scene",
    [
        ("Character: a smile.\nScene: a kitchen.", "a smile.", "a kitchen."),
        ("**Character:** a smile.\n\n**Scene:** a\nkitchen.", "a smile.", "a kitchen."),
        ("Sure!\n- Character - a smile\n- Scene - a kitchen", "a smile", "a kitchen"),
        ('```json\n{"Character": "a smile", "scene": "a kitchen"}\n```', "a smile", "a kitchen"),
        ("CHARACTER: a smile. SCENE: a kitchen", "a smile.", "a kitchen"),
    ],
)
def test_clues_are_found_in_the_forms_that_models_write(text, character, scene):
    assert eri_quality.parse_clues(text) == {"character": character, "scene": scene}


@pytest.mark.parametrize("text", ["", "a smile in a kitchen", "Character: a smile", '{"character": "a", "scene": ""}'])
def test_clues_with_a_part_missing_are_malformed(text):
    assert eri_quality.parse_clues(text) is None


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=300) | st.text('{}":,characterscene \n*', max_size=80))
def test_no_text_breaks_the_rules(text):
    eri_quality.parse_clues(text)
    for kind in ("clues", "reason"):
        found = eri_quality.check(kind, text, "stop", PROMPT, HAPPY, RULES)
        assert found is None or (found[0] in eri_quality.RULES and "\n" not in found[1])


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join), max_size=12),
    similar=st.floats(0.3, 0.95),
    length=st.integers(1, 3),
)
def test_near_duplicates_are_those_of_comparing_all_pairs(texts, similar, length):
    named = [(str(n), text) for n, text in enumerate(texts)]
    runs = {name: eri_quality._runs(eri_quality.words(text), length) for name, text in named}
    kept, expected = [], set()
    for name, _ in named:
        alike = [k for k in kept if len(runs[k] & runs[name]) > similar * len(runs[k] | runs[name])]
        expected.add(name) if alike else kept.append(name)
    assert set(eri_quality.near_duplicates(named, length, similar)) == expected


HOSTILE = [
    "_",
    " character: *",
    "character ",
    "scene:",
    "is very ",
    "is so happy not ",
    " ",
    "lyly",
    "'s",
    "{",
    "it is ",
    ",is a*",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_reading_takes_time_in_proportion_to_the_text(unit):
    """A hundred times the text may take 2,000 times the CPU time, for noise; quadratic reading takes 10,000 times."""

    def seconds(length: int) -> float:
        text = "Character: " + unit * (length // len(unit))
        started = time.process_time()
        eri_quality.parse_clues(text)
        eri_quality.contradiction(text, ("sadness",), RULES.emotions)
        return time.process_time() - started

    seconds(1_000)
    assert seconds(200_000) < 2000 * seconds(2_000) + 1


def test_a_very_long_answer_breaks_a_rule_and_is_not_read():
    text = "It is a word. " * 10**6
    started = time.process_time()
    found = eri_quality.check("reason", text, "stop", PROMPT, HAPPY, RULES)
    assert found == ("too_long", "14000000 characters, more than 20000") and time.process_time() - started < 1
