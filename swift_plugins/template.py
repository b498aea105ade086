"""Chat templates `emoverse_phi3`, `emoverse_internlm2`, `emoverse_chatml`: one tile a picture, 8 frames a video.

Which one belongs to a checkpoint is read from the checkpoint (`swift_plugins.internvl2`); naming the other is refused.
Tile size and tokens per tile come from its config. From the environment, as with ms-swift's own `internvl2`:

    AMT_CACHE, AMT_CACHE_GB            folder and bound of the cache of prepared clips (swift_plugins.media_cache)
    AMT_FEATURES                       folder of what the frozen vision tower sees (swift_plugins.features)
    VIDEO_SEGMENTS (or NUM_SEGMENTS)   frames per video, default 8
    MAX_NUM, VIDEO_MAX_NUM             most tiles per image and per frame, default 1; more adds InternVL2's thumbnail
    CHAT_TOKENS=pieces                 prompt and answer are tokenized each by itself, as ms-swift 2 did in EmoVerse's
                                       official fine-tuning; default whole, one text, as InternVL2 does. They differ
                                       where the tokenizer is SentencePiece's: an answer starts with `▁Joy`, not `Joy`

They are no part of a checkpoint: but for the first three, repeat for inference what training used.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import accumulate, groupby

import numpy as np
import torch
import yaml
from PIL import Image
from swift.template import Template, TemplateMeta, register_template
from swift.template.templates.utils import ChatmlTemplateMeta
from swift.template.utils import findall
from swift.template.vision_utils import load_file
from swift.utils import get_env_args, is_deepspeed_enabled, is_dist
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from swift_plugins import features as vision
from swift_plugins import media_cache, packing
from swift_plugins.files import CONFIGS, InputError
from swift_plugins.frames import Source, read_picture, sample_frames
from swift_plugins.internvl2 import IMAGE_TOKEN, KINDS, NATIVE_KINDS, preprocessor_config, slow_text, tile_side

PROMPTS = CONFIGS / "prompts.yaml"
IMAGE = ["<img>", [-100], "</img>\n"]
TILES = 1  # to be raised when the same file becomes other pixels: what was prepared before is then not found
CHARACTERS = 3  # of a token, about
READY = 3  # dimensions of tiles that the vision tower has seen: (tiles, tokens, width)
SERVED = ("vllm", "lmdeploy", "sglang")  # modes in which another program looks at the pictures


def video_source(video: str | bytes | dict, kind: str = "video") -> Source:
    """What PyAV can open of a row's or a request's video (or sound, a `kind` for the error): a path, bytes, a data URL,
    an http URL or base64 text. Raises `InputError`."""
    if isinstance(video, dict):  # how `datasets` stores media
        video = video.get("bytes") or video["path"]
    if isinstance(video, str | os.PathLike) and os.path.exists(video):
        return video
    try:
        return load_file(video)
    except (OSError, ValueError, AssertionError) as error:
        raise InputError(f"{kind} cannot be read: {error}", str(video)[:80]) from None


class ChannelOfEveryRow:
    """Rows of other datasets, which state no channel, train under the name `other`: ms-swift logs their `loss_None`."""

    exact = False  # whether `lengths_only` gives the ids of a row without a look at its media
    counting = False  # within `lengths_only`

    def _preprocess_inputs(self, inputs):
        super()._preprocess_inputs(inputs)
        if self.mode == "train" and inputs.channel is None:
            inputs.channel = "other"

    def lengths_only(self):
        """Encode rows for their token ids alone; templates that know no shorter way encode them whole."""
        return nullcontext()


class Deaf:
    """A model without hearing: the sounds that a row lists are left out, and the <audio> tags that stand for them."""

    def _preprocess_inputs(self, inputs):
        left = len(inputs.audios)
        for message in inputs.messages:
            if left and isinstance(message["content"], str):
                message["content"], gone = re.subn("<audio>", "", message["content"], count=left)
                left -= gone
        inputs.audios = []
        super()._preprocess_inputs(inputs)


class EmoverseTemplate(Deaf, ChannelOfEveryRow, Template):
    """Pictures → tiles → `<IMG_CONTEXT>` tokens, for transformers' `InternVLForConditionalGeneration`.

    The processor is a bare tokenizer. The pixels go through transformers' PIL image processor for InternVL, which
    equals InternVL2's own transform and imports no torchvision.
    """

    skip_prompt = False  # generation starts from embeddings and returns new tokens only
    support_padding_free = True
    exact = True

    def _init_placeholder_tokens(self):
        self.placeholder_tokens = [IMAGE_TOKEN]  # ms-swift writes ids into it: one list per tokenizer
        super()._init_placeholder_tokens()

    def init_processor(self, processor):
        first = processor is not None and not self._processor_inited
        super().init_processor(processor)
        if first and self.use_chat_template and self.template_meta.template_type == KINDS["phi3"].template:
            # Some Phi-3 tokenizers add <s>, some do not: the checkpoint's decides.
            bos = self.tokenizer("").input_ids
            self.template_meta.prefix = [bos]
            self.template_meta.system_prefix = [bos, *self.template_meta.system_prefix]

    def init_env_args(self):
        super().init_env_args()
        self.chat_tokens = get_env_args("chat_tokens", str, "whole")
        if self.chat_tokens not in ("whole", "pieces"):
            raise ValueError(f"CHAT_TOKENS must be whole or pieces, not {self.chat_tokens}")
        segments = get_env_args("num_segments", int, 8)
        settings = {
            "video_segments": get_env_args("video_segments", int, segments),
            "max_num": get_env_args("max_num", int, 1),
            "video_max_num": get_env_args("video_max_num", int, 1),
        }
        for name, value in settings.items():
            if value < 1:
                raise ValueError(f"{name.upper()} must be 1 or more, not {value}")
            setattr(self, name, value)
        self.side = tile_side(self.config)
        settings = preprocessor_config(self.side)
        del settings["image_processor_type"]
        self.image_processor = GotOcr2ImageProcessorPil(**settings)
        self.media_cache = media_cache.from_environment()
        self.features = vision.from_environment(self.model_info.model_dir, self.config, self.model_info.torch_dtype)
        expected = KINDS[NATIVE_KINDS[self.config.text_config.model_type]].template
        if self.template_meta.template_type != expected:
            raise ValueError(
                f"template {self.template_meta.template_type!r} does not belong to this checkpoint: "
                f"its language model speaks {expected!r}"
            )

    def replace_tag(self, media_type, index, inputs):
        if media_type == "image":
            return IMAGE
        if media_type != "video":
            raise ValueError(f"{media_type} is not supported")

        return self.replace_video2image(self._frames, inputs, lambda i: [f"Frame{i + 1}: ", *IMAGE])

    def _preprocess_inputs(self, inputs):
        if self.counting:
            inputs.images = [_blank() for _ in inputs.images]
        elif self.features is not None and not inputs.objects and self._get_max_pixels(inputs) is None:
            rule = self.rule(video=False)
            inputs.images = [(self._ready(image, rule) or [image])[0] for image in inputs.images]
        super()._preprocess_inputs(inputs)

    def _frames(self, video) -> list:
        """The pictures of one video, marked as such for `_tiles`."""
        if self.counting:
            return [_blank() for _ in range(self.video_segments)]
        rule = self.rule(video=True)
        ready = self._ready(video, rule)
        if ready is not None:
            return ready
        file = isinstance(video, str | os.PathLike) and os.path.isfile(video)
        if self.media_cache is None or self.mode in SERVED or not file:
            return self._marked(sample_frames(video_source(video), self.video_segments))
        key = media_cache.file_key(video) | rule
        prepared = self.media_cache.load(key)
        if prepared is None:
            tiles = self.tiles_of(video, video=True)
            prepared = {"tiles": torch.cat(tiles), "counts": torch.tensor([len(tile) for tile in tiles])}
            self.media_cache.save(key, prepared)
        return [_blank(tiles) for tiles in prepared["tiles"].split(prepared["counts"].tolist())]

    def rule(self, video: bool) -> dict:
        """How a file becomes tiles, as the keys of prepared media say it."""
        frames = {"frames": self.video_segments} if video else {}
        return frames | {"tiles": self.video_max_num if video else self.max_num, "side": self.side, "version": TILES}

    def tiles_of(self, path: str | os.PathLike, video: bool) -> list[torch.Tensor]:
        """Bytes of the tiles of each picture of a file, (tiles, 3, side, side). Raises `InputError`."""
        pictures = self._marked(sample_frames(path, self.video_segments)) if video else [read_picture(path)]
        return [self._tiles(picture) for picture in pictures]

    def _ready(self, media, rule: dict) -> list | None:
        """Pictures that stand for the prepared features of a file; None where it has none."""
        path = None if self.features is None or self.mode in SERVED else vision.media_file(media)
        found = path and self.features.find(path, rule)
        return [_blank(tiles) for tiles in found] if found else None

    @staticmethod
    def _marked(frames: list) -> list:
        for frame in frames:
            frame.info["of_video"] = True
        return frames

    def _encode(self, inputs):
        encoded = super()._encode(inputs)
        places = findall(encoded["input_ids"], -100)
        tiles = [self._tiles(image) for image in inputs.images]
        if len(places) != len(tiles):
            raise ValueError(f"{len(tiles)} pictures for {len(places)} places in the text")
        token = self.config.image_token_id
        counts = [len(tile) * self.config.image_seq_length for tile in tiles]
        encoded["input_ids"], encoded["labels"], encoded["loss_scale"] = self._extend_tokens(
            encoded["input_ids"],
            encoded["labels"],
            encoded.get("loss_scale"),
            places,
            lambda i: [token] * counts[i],
        )
        seen = [part for part in tiles if part.dim() != READY and not self.counting]
        encoded["pixel_values"] = self.normalised(torch.cat(seen)) if seen else None
        if self.features is not None and tiles and not self.counting:
            ready = [part for part in tiles if part.dim() == READY]
            encoded["vision_features"] = torch.cat(ready) if ready else None
            encoded["prepared"] = torch.tensor([part.dim() == READY for part in tiles for _ in part])
        return encoded

    def _encode_truncated(self, inputs):
        """For vLLM, the ids before it puts `<img>`, the tokens of a tile and `</img>` in the place of each image token
        (its models/interns1.py), and the pictures as the tiles that they become, which it need not resize."""
        encoded = super()._encode_truncated(inputs)
        if self.mode != "vllm":
            return encoded
        ids, token = list(encoded["input_ids"]), self.config.image_token_id
        around = self.tokenizer.convert_tokens_to_ids([IMAGE[0], IMAGE[2].strip()])
        for place in reversed(findall(ids, -100)):
            if [ids[place - 1], ids[place + 1]] != around:
                raise InputError("vLLM cannot write these tokens around a picture; leave CHAT_TOKENS at whole")
            ids[place - 1 : place + 2] = [token]
        pictures = []
        for image in encoded.get("images") or ():
            (tile,) = self._tiles(image)
            pictures.append(Image.fromarray(tile.permute(1, 2, 0).numpy()))
        return encoded | {"input_ids": ids} | ({"images": pictures} if pictures else {})

    def look_ahead(self, model, rows: list[dict], seen: vision.Seen) -> None:
        """Let the vision tower see the tiles of encoded rows before their turn comes."""
        shown = [row for row in rows if row.get("pixel_values") is not None and self.features is None]
        if not shown:
            return
        counts = [len(row["pixel_values"]) for row in shown]
        looked = seen.look(self.get_base_model(model), torch.cat([row["pixel_values"] for row in shown]))
        for row, ready in zip(shown, looked.split(counts), strict=True):
            row |= {
                "pixel_values": None,
                "vision_features": ready,
                "prepared": torch.ones(len(ready), dtype=torch.bool),
            }

    def _data_collator_mm_data(self, batch):
        collated = super()._data_collator_mm_data(batch)
        for name in ("vision_features", "prepared"):
            if parts := [row[name] for row in batch if row.get(name) is not None]:
                collated[name] = torch.cat(parts)
        return collated

    def _tokenize(self, context, **kwargs):
        if isinstance(context, str):
            context = self._slow_text(context)
        return super()._tokenize(context, **kwargs)

    def _slow_text(self, text: str, start: bool = True) -> str:
        ends = [word for word in self.template_meta.stop_words if isinstance(word, str)]
        return slow_text(self.tokenizer, text, ends, start)

    def _encode_context_list(self, context_list, loss_scale_list=None):
        """Tokenize neighbouring texts as one; a token belongs to the text that its first character is in."""
        if self.chat_tokens == "pieces":
            return super()._encode_context_list(context_list, loss_scale_list)
        contexts, scales = [], []
        end = next((part for part in self.template_meta.suffix if isinstance(part, str)), None)
        for context, scale in zip(context_list, loss_scale_list or [0.0] * len(context_list), strict=True):
            text = isinstance(context, str)
            if end and text and context.startswith(end) and scales and scales[-1] > 0 and scale == 0:
                # ms-swift finds the end of an earlier answer after its tokens; one of white space alone has none.
                contexts, scales, context = [*contexts, end], [*scales, 1.0], context.removeprefix(end)
            contexts.append(context)
            scales.append(scale)
        tokens = []
        for is_text, group in groupby(contexts, key=lambda context: isinstance(context, str)):
            texts = list(group)
            start = tokens in ([], [self.tokenizer("").input_ids])  # that of the conversation
            tokens += self._tokenize_texts(texts, start) if is_text else texts
        return super()._encode_context_list(tokens, scales)

    def _tokenize_texts(self, texts: list[str], start: bool) -> list[list[int]]:
        """The ids of the joined texts, those that start within each."""
        texts = [self._slow_text(text, start and i == 0) for i, text in enumerate(texts)]
        encoding = self.tokenizer("".join(texts), add_special_tokens=False, return_offsets_mapping=True)
        ends, ids = list(accumulate(map(len, texts))), [[] for _ in texts]
        for token, (first, _) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
            ids[bisect_right(ends, first)].append(token)
        return ids

    def _tiles(self, image) -> torch.Tensor:
        """(tiles, 3, side, side) bytes of one picture; (tiles, tokens, width) of one that the tower has seen before."""
        if "tiles" in image.info:
            return image.info["tiles"]
        most = self.video_max_num if image.info.get("of_video") else self.max_num
        if most == 1 and image.mode == "RGB":  # what the processor does, without its copies
            tile = image.resize((self.side, self.side), self.image_processor.resample)
            return torch.from_numpy(np.array(tile)).permute(2, 0, 1)[None].contiguous()
        settings = {"crop_to_patches": most > 1, "max_patches": most, "do_rescale": False, "do_normalize": False}
        return self.image_processor(image, **settings, return_tensors="pt")["pixel_values"]

    def normalised(self, tiles: torch.Tensor) -> torch.Tensor:
        """Bytes as the vision tower wants them, to the last bit what the image processor makes of them."""
        mean, deviation = (
            torch.tensor(values)[:, None, None]
            for values in (self.image_processor.image_mean, self.image_processor.image_std)
        )
        return tiles.float().div_(255).sub_(mean).div_(deviation).to(self.model_info.torch_dtype)

    @contextmanager
    def lengths_only(self):
        """Encode rows without opening their pictures, for their token ids alone; where a picture's number of tiles
        depends on its size, they are opened all the same."""
        self.counting = self.max_num == self.video_max_num == 1
        try:
            yield
        finally:
            self.counting = False

    def _post_encode(self, model, inputs):
        model = self.get_base_model(model)
        embedding = model.get_input_embeddings()
        embeds = embedding(inputs["input_ids"])
        pixels, ready = inputs.get("pixel_values"), inputs.get("vision_features")
        if self.features is not None:
            vision.refuse_trained(model)
        features = partial(
            model.get_image_features,
            vision_feature_layer=self.config.vision_feature_layer,
            vision_feature_select_strategy=self.config.vision_feature_select_strategy,
        )
        if pixels is not None or ready is not None:
            if ready is None:
                image = features(pixels.to(embeds.device)).pooler_output
            else:
                image = vision.projected(model, pixels, ready.to(embeds.device), inputs["prepared"])
            image = image.to(embeds.device, embeds.dtype)
            places = (inputs["input_ids"] == self.config.image_token_id).unsqueeze(-1)
            embeds = embeds.masked_scatter(places.expand_as(embeds), image)
        elif self.is_training and (is_dist() or is_deepspeed_enabled()):
            # Text-only rows on this rank: the others wait for the projector's gradients all the same.
            side = self.image_processor.size["height"]
            image = features(torch.zeros((1, 3, side, side), device=embeds.device, dtype=embeds.dtype)).pooler_output
            embeds = embeds + image.mean() * 0.0
        return {"inputs_embeds": embeds} | packing.packed_mask(self, model, inputs)

    def generate(self, model, *args, **kwargs):
        return super().generate(model, *args, **self._begun(model, kwargs))

    @torch.no_grad()
    def _begun(self, model, inputs: dict) -> dict:
        """What generation takes, with what all its rows begin with (the system turn) run once for all of them.

        Their prompts become start, padding, rest; the cache holds the start.
        """
        embeds, mask = inputs.get("inputs_embeds"), inputs.get("attention_mask")
        if embeds is None or mask is None or len(embeds) < 2 or not self._alike(inputs, embeds.shape[1]):
            return inputs
        prompts = [row[there.bool()] for row, there in zip(embeds, mask, strict=True)]
        shortest = min(map(len, prompts))
        starts = torch.stack([prompt[: shortest - 1] for prompt in prompts])  # each goes on from one token of its own
        shared = int((starts == starts[0]).all(-1).all(0).cumprod(0).sum())
        if not shared:
            return inputs
        language = self.get_base_model(model).model.language_model
        seen = language(inputs_embeds=starts[:1, :shared], use_cache=True).past_key_values
        seen.batch_repeat_interleave(len(prompts))
        embeds, mask = torch.zeros_like(embeds), torch.zeros_like(mask)
        embeds[:, :shared], mask[:, :shared] = starts[:, :shared], 1
        for place, prompt in enumerate(prompts):
            rest = len(prompt) - shared
            embeds[place, -rest:], mask[place, -rest:] = prompt[shared:], 1
        return inputs | {"inputs_embeds": embeds, "attention_mask": mask, "past_key_values": seen}

    def _alike(self, inputs: dict, width: int) -> bool:
        """Whether one run of a start serves all rows: one model and one answer each, positions that mean the same."""
        config, text = inputs.get("generation_config"), self.config.text_config
        if config is None or "adapter_names" in inputs:
            return False
        if (config.num_beams or 1) > 1 or (config.num_return_sequences or 1) > 1:
            return False
        # Above it, positions are turned by the length of what runs together (longrope, dynamic).
        rope = text.rope_parameters or {}
        if width > rope.get("original_max_position_embeddings", text.max_position_embeddings):
            return False
        return not is_deepspeed_zero3_enabled()  # there, no process may run more often than the others


def about_tokens(template: Template, row: dict) -> int:
    """About how long a row becomes, its answer included where it has one; nothing is decoded."""
    pictures = len(row.get("images") or ()) + len(row.get("videos") or ()) * getattr(template, "video_segments", 8)
    text = sum(len(message["content"]) for message in row["messages"] if isinstance(message["content"], str))
    sounds = len(row.get("audios") or ()) * getattr(template, "sound_tokens", 0)
    return 1 + pictures * getattr(template.config, "image_seq_length", 256) + sounds + text // CHARACTERS


def _blank(tiles: torch.Tensor | None = None) -> Image.Image:
    """A picture that stands for its tiles, or for one tile of which nobody asks the pixels."""
    image = Image.new("RGB", (1, 1))
    image.info["tiles"] = torch.empty(1, 0) if tiles is None else tiles
    return image


def register() -> None:
    """Register the chat formats; the system turn is the one of configs/prompts.yaml unless `--system` gives another.

    InternVL2's own conversations have no line break after a turn; InternVL3's (ChatML) do.
    """
    phi3, internlm2 = KINDS["phi3"], KINDS["internlm2"]
    common = {
        "template_cls": EmoverseTemplate,
        "default_system": yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))["system"],
    }
    formats = [
        TemplateMeta(
            phi3.template,
            prefix=[],
            prompt=[f"<|user|>\n{{{{QUERY}}}}{phi3.end}<|assistant|>\n"],
            chat_sep=[phi3.end],
            suffix=[phi3.end],
            system_prefix=[f"<|system|>\n{{{{SYSTEM}}}}{phi3.end}"],
            **common,
        ),
        TemplateMeta(
            internlm2.template,
            prefix=["<s>"],
            prompt=[f"<|im_start|>user\n{{{{QUERY}}}}{internlm2.end}<|im_start|>assistant\n"],
            chat_sep=[internlm2.end],
            suffix=[internlm2.end],
            system_prefix=[f"<s><|im_start|>system\n{{{{SYSTEM}}}}{internlm2.end}"],
            **common,
        ),
        ChatmlTemplateMeta(KINDS["qwen"].template, **common),
    ]
    for meta in formats:
        register_template(meta, exist_ok=True)
