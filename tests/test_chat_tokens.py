"""Conversations with a SentencePiece tokenizer.model, as InternVL2 is published: ids and loss mask of the original.

`phi3_tokens.json` was measured with the original's class, the slow `LlamaTokenizer` of transformers 4.37.2, on the
tokenizer of `tests/tiny_internvl2.py`, which is built piece by piece and so never differs:

    whole   InternVL2's reading: the conversation is one text, trained tokens in ⟦⟧ as its preprocess_phi3 leaves them
            (without ⟦⟧: it drops such a row, "tokenization mismatch")
    pieces  ms-swift 2.6.1's, with which EmoVerse was fine-tuned: prompt and answer each by themselves
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from swift.model import get_model_processor
from swift.template import get_template
from transformers import AutoTokenizer

import swift_plugins.emoverse  # noqa: F401
from swift_plugins.files import InputError
from swift_plugins.internvl2 import load_internvl2, load_tokenizer, native_config
from tests.conftest import in_process
from tests.test_adapters import CONFIGS, CPU, swift
from tests.test_frames import write_clip
from tests.test_serving import served
from tests.tiny_amt import tiny_amt
from tests.tiny_internvl2 import sentencepiece_checkpoint, tiny_tokenizer, write_sentencepiece

GOLDEN = json.loads((Path(__file__).parent / "phi3_tokens.json").read_text(encoding="utf-8"))
PICTURE = " ".join(["<img>", *["<IMG_CONTEXT>"] * 4, "</img>"])
VARIANTS = [(False, True), (False, False), (True, True), (True, False), (None, True)]  # Phi-3's legacy, rstrip
FORMATS = {  # before a turn of a role, after it
    "phi3": ("<|{}|>\n", "<|end|>"),
    "internlm2": ("<|im_start|>{}\n", "<|im_end|>"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    internlm2 = sentencepiece_checkpoint(tmp_path_factory.mktemp("internlm2") / "model", "internlm2")
    return {"internlm2": internlm2} | {
        variant: sentencepiece_checkpoint(
            tmp_path_factory.mktemp("phi3") / "model", legacy=variant[0], rstrip=variant[1]
        )
        for variant in VARIANTS
    }


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / "picture.png")
    return str(folder / "picture.png"), str(write_clip(folder / "clip.mp4"))


def template_of(folder, mode="train", **options):
    processor = get_model_processor(str(folder), model_type="emoverse", torch_dtype=torch.float32, load_model=False)[1]
    template = get_template(processor, max_length=8192, **options)
    template.set_mode(mode)
    return template


def messages(system, turns):
    rows = [{"role": "system", "content": system}] if system else []
    for query, answer in turns:
        rows += [{"role": "user", "content": query}, {"role": "assistant", "content": answer}]
    return rows


def shown(template, encoded):
    """Tokens as `phi3_tokens.json` writes them."""
    labels = encoded.get("labels") or [-100] * len(encoded["input_ids"])
    tokens = template.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    text = " ".join(f"⟦{token}⟧" if label >= 0 else token for token, label in zip(tokens, labels, strict=True))
    assert all(label in (-100, token) for token, label in zip(encoded["input_ids"], labels, strict=True))
    return text.replace("⟧ ⟦", " ").replace("⟦", "⟦ ").replace("⟧", " ⟧").replace(PICTURE, "PICTURE")


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['name']}-{case['legacy']}-{case['rstrip']}")
def test_ids_and_loss_mask_are_the_original_ones(folders, media, case, monkeypatch):
    rows = messages(case["system"], case["turns"])
    pictures = {"images": [media[0]] * sum(query.count("<image>") for query, _ in case["turns"])}
    template = template_of(folders[case["legacy"], case["rstrip"]])
    whole = shown(template, template.encode({"messages": rows, **pictures}))
    if "⟦" not in case["whole"]:
        whole = re.sub(" ?[⟦⟧]", "", whole)
    assert whole == case["whole"]
    asked = template_of(folders[case["legacy"], case["rstrip"]], "transformers")
    prompt = shown(asked, asked.encode({"messages": rows[:-1], **pictures}))
    assert re.sub(" ?[⟦⟧]", "", case["whole"]).startswith(prompt + " ")
    assert prompt.endswith("<|assistant|>" + ("" if case["rstrip"] else " ▁ <0x0A>" if case["legacy"] else " <0x0A>"))
    monkeypatch.setenv("CHAT_TOKENS", "pieces")
    template = template_of(folders[case["legacy"], case["rstrip"]])
    assert shown(template, template.encode({"messages": rows, **pictures})) == case["pieces"]


@pytest.mark.parametrize(
    "system, turns, expected",
    [
        (None, [("Then?", "")], "<s> ▁ <|system|> SYSTEM <|end|> <|user|> Then ? <|end|> <|assistant|> ⟦ <|end|> ⟧"),
        ("Be", [("Then?", ""), ("", "He.")], "<s> ▁ <|system|> Be <|end|> <|user|> Then ? <|end|> <|assistant|> "
         "<|end|> <|user|> <|end|> <|assistant|> ⟦ H e . <|end|> ⟧"),
    ],
)  # fmt: skip
def test_empty_answers_are_learnt(folders, system, turns, expected):
    """InternVL2 leaves such an answer without an end and drops the row; an ECPE answer without a cause is empty."""
    template = template_of(folders[False, True])
    tokens = shown(template, template.encode({"messages": messages(system, turns)}))
    assert re.sub("(?<=<.system.> ).*?(?= <.end.> <.user.>)", "SYSTEM" if system is None else "Be", tokens) == expected


def test_without_bos_and_with_chat_tokens_named_special(folders, tmp_path):
    """`▁` stands before a first chat token unless tokenizer_config.json names that one among its special tokens."""
    case = GOLDEN[0]
    for settings_, start_ in (
        ({"add_bos_token": False}, "▁ <|system|>"),
        ({"additional_special_tokens": ["<|system|>", "<img>"]}, "<s> <|system|>"),
        ({"additional_special_tokens": None}, "<s> ▁ <|system|>"),
    ):
        folder = sentencepiece_checkpoint(tmp_path / start_, **settings_)
        template = template_of(folder)
        encoded = template.encode({"messages": messages(case["system"], case["turns"])})
        assert shown(template, encoded) == case["whole"].replace("<s> ▁ <|system|>", start_)


@pytest.mark.parametrize("variant", ["internlm2", (False, True)])
def test_added_tokens_keep_their_ids(folders, variant):
    tokenizer = load_tokenizer(folders[variant])
    added = {token: i for token, (i, _) in Slow(folders[variant]).added.items()}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in added} == added
    assert native_config(folders[variant]).image_token_id == added["<IMG_CONTEXT>"]


def test_tokenizer_model_goes_before_tokenizer_json(folders, tmp_path):
    """The original asks for the slow class, whatever lies beside its file."""
    folder = write_sentencepiece(tmp_path)
    (folder / "config.json").write_bytes((folders[False, True] / "config.json").read_bytes())
    tiny_tokenizer("phi3").backend_tokenizer.save(str(folder / "tokenizer.json"))
    ids = load_tokenizer(folders[False, True])("Joy.<|end|>").input_ids
    assert load_tokenizer(folder)("Joy.<|end|>").input_ids == ids


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", None], ids=["pointer", "cut off"])
def test_a_broken_tokenizer_model_is_named(tmp_path, kind, content):
    """A Git LFS pointer instead of the file, as a clone without LFS leaves, or a download that broke off."""
    file = sentencepiece_checkpoint(tmp_path, kind) / "tokenizer.model"
    file.write_bytes(content or file.read_bytes()[:1001])
    with pytest.raises(InputError, match=r"tokenizer\.model: is not a whole SentencePiece model"):
        load_tokenizer(tmp_path)


def test_text_without_a_chat(folders):
    """`--use_chat_template false`: one text with its end, and no `▁` of a turn inside it."""
    template = template_of(folders[False, True], use_chat_template=False)
    tokens = shown(template, template.encode({"messages": messages(None, [("Joy.", "Then?")])}))
    assert tokens == "<s> ▁Joy . ⟦ Then ? <|endoftext|> ⟧"


def test_an_unknown_reading_is_refused(folders, monkeypatch):
    monkeypatch.setenv("CHAT_TOKENS", "letters")
    with pytest.raises(ValueError, match="CHAT_TOKENS must be whole or pieces, not letters"):
        template_of(folders[False, True])


# ---------------------------------------------------------------------------------------- against sentencepiece itself


class Slow:
    """The slow class's rules around `sentencepiece`, from the folder's own files."""

    def __init__(self, folder):
        config = json.loads((folder / "tokenizer_config.json").read_text())
        self.legacy = config.get("legacy") is not False  # InternLM2's class knows no other
        self.added = {token["content"]: (int(i), token) for i, token in config["added_tokens_decoder"].items()}
        self.split = re.compile("(" + "|".join(map(re.escape, self.added)) + ")")
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))

    def plain(self, text):
        if self.legacy or not text:
            return self.model.encode(text)
        return self.model.encode("\n" + text)[2:]  # the prefix and the line break, which merges with nothing

    def ids(self, text):
        parts = self.split.split(text if self.legacy else "▁" + text.replace("▁", " "))
        for i in range(1, len(parts), 2):
            if self.added[parts[i]][1]["rstrip"]:
                parts[i + 1] = parts[i + 1].lstrip()
        tokens = [[self.added[part][0]] if i % 2 else self.plain(part) for i, part in enumerate(parts)]
        return [1, *(token for part in tokens for token in part)]


WORDS = [
    "Joy.",
    " ",
    "  ",
    "\n",
    "\t",
    "What is shown?",
    "▁",
    "é",
    "日😀",
    "<|end|>",
    "<|user|>",
    "<img>",
    "</s>",
    "<",
    "a",
]
sides = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map("".join) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8
)


@settings(max_examples=150, deadline=None)
@given(
    variant=st.sampled_from(["internlm2", *VARIANTS]),
    system=sides,
    turns=st.lists(st.tuples(sides, sides), min_size=1, max_size=3),
)
def test_any_conversation(folders, variant, system, turns):
    """White space at every edge, chat tokens spelled out, bytes; the mask ends and starts where the answers do."""
    turns[-1] = (turns[-1][0], turns[-1][1] + ".")  # ms-swift does not repeat an end that an answer brings along
    slow = _cached(Slow, folders[variant])
    role, end = FORMATS["internlm2" if variant == "internlm2" else "phi3"]
    text, ends = role.format("system") + system + end, []
    for query, answer in turns:
        text += role.format("user") + query + end + role.format("assistant")
        ends.append(len(slow.ids(text)))
        text += answer + end
        ends.append(len(slow.ids(text)))
    encoded = _cached(template_of, folders[variant]).encode({"messages": messages(system, turns)})
    assert encoded["input_ids"] == slow.ids(text)
    trained = [i for i, label in enumerate(encoded["labels"]) if label != -100]
    assert trained == [i for a, b in zip(ends[::2], ends[1::2], strict=True) for i in range(a, b)]


def test_pictures_and_clips(folders, media):
    """Both in one conversation: four tokens a picture, eight frames a clip, in their places."""
    picture = f"<img>{'<IMG_CONTEXT>' * 4}</img>\n"
    clip = "".join(f"Frame{i + 1}: {picture}" for i in range(8))
    rows = messages("Be brief.", [("<video>What is shown?", "Joy."), ("Then <image> ?", " He.")])
    encoded = template_of(folders[False, True]).encode({"messages": rows, "images": [media[0]], "videos": [media[1]]})
    text = f"<|system|>\nBe brief.<|end|><|user|>\n{clip}What is shown?<|end|><|assistant|>\nJoy.<|end|>"
    text += f"<|user|>\nThen {picture} ?<|end|><|assistant|>\n He.<|end|>"
    assert encoded["input_ids"] == Slow(folders[False, True]).ids(text)
    assert len(encoded["pixel_values"]) == 9


_made = {}


def _cached(make, folder):
    if (make, folder) not in _made:
        _made[make, folder] = make(folder)
    return _made[make, folder]


# ------------------------------------------------------------------------------------- training, export, served model


@pytest.fixture(scope="module")
def merged(folders, tmp_path_factory):
    """Two steps of training, merged and completed as shell/export.sh does."""
    from swift.pipelines import SwiftSft, export_main

    folder = tmp_path_factory.mktemp("trained")
    data = tiny_amt(folder / "amt")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"AMT_DATA": data, "AMT_MEDIA": data, "AMT_MIXTURES": data / "mixtures.yaml"}.items():
            patch.setenv(key, str(value))
        patch.setenv("SWIFT_CONFIG_FILE", "")
        flags = ["--model", folders[False, True], *CPU, "--output_dir", folder / "stage1"]
        SwiftSft(swift(CONFIGS / "emoverse-4b" / "stage1.yaml", *flags)).main()
    checkpoint = folder / "stage1" / "checkpoint-2"
    export_main(["--adapters", str(checkpoint), "--merge_lora", "true", "--output_dir", str(folder / "merged")])
    done = in_process("-m", "swift_plugins.complete_export", folder / "merged")
    assert done.returncode == 0, done.stderr
    return folder / "merged"


def prompt_tokens(case):
    """The tokens before the last answer of a case."""
    return re.sub(" ?[⟦⟧]", "", case["whole"].rpartition(" ⟦")[0])


@pytest.mark.swift
def test_an_exported_folder_reads_alike(merged, folders, media):
    """In this project, and in transformers alone from the folder's own chat template."""
    assert not (merged / "tokenizer.model").exists()
    template, stock = template_of(merged), AutoTokenizer.from_pretrained(merged)
    for case in GOLDEN[:15]:
        rows = messages(case["system"], case["turns"])
        pictures = [media[0]] * sum(query.count("<image>") for query, _ in case["turns"])
        assert shown(template, template.encode({"messages": rows, "images": pictures})) == case["whole"]
        if not pictures and case["name"] != "space signs":  # the slow class alone takes ▁ for a space
            ids = stock.apply_chat_template(rows[:-1], add_generation_prompt=True)["input_ids"]
            assert " ".join(stock.convert_ids_to_tokens(ids)) == prompt_tokens(case), case["name"]
    text = "<|user|>\n Joy. é <img></img> He."
    assert stock(text).input_ids == load_tokenizer(folders[False, True])(text).input_ids


@pytest.mark.swift
def test_a_served_chat_with_history_is_the_original_conversation(merged, tmp_path):
    """What the server answers is what the model says to the original's ids."""
    case = next(case for case in GOLDEN if case["name"] == "history, white space")
    model, tokenizer = load_internvl2(merged).eval(), load_tokenizer(merged)
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(prompt_tokens(case).split())])
    answer = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=tokenizer.vocab_size)[0]
    world = {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "CONFIG": "emoverse-4b"}
    with served(world, tmp_path, MERGED=str(merged)) as client:
        rows = messages(case["system"], case["turns"])[:-1]
        reply = client.chat.completions.create(model="emoverse", messages=rows, max_tokens=12, temperature=0)
    assert reply.choices[0].message.content == tokenizer.decode(answer[ids.shape[1] :])
    assert reply.usage.prompt_tokens == ids.shape[1]
