"""The benchmark `amt` of evalscope, the evaluation backend of `swift eval`: AMT rows, scored as compute_result.py does.

    swift eval … --eval_dataset amt                        # docs/swift-eval.md

Subsets, rows and media are those of `--dataset amt:…`; all answers are in amt.jsonl beside evalscope's report.
"""

import importlib.util
from pathlib import Path

from evalscope.api.benchmark import BenchmarkMeta, VisionLanguageAdapter
from evalscope.api.dataset import DatasetDict, Sample
from evalscope.api.dataset.loader import DictDataLoader
from evalscope.api.messages import ChatMessageSystem, ChatMessageUser, ContentImage, ContentText, ContentVideo
from evalscope.api.metric import AggScore, Score
from evalscope.api.registry import register_benchmark
from evalscope.backend.opencompass import OpenCompassBackendManager
from evalscope.constants import EvalType

from swift_plugins.build_report import media_root
from swift_plugins.dataset import parts, swift_row, with_system
from swift_plugins.files import InputError, write_rows
from swift_plugins.mixture import data_root
from swift_plugins.rewards import channel_metrics
from swift_plugins.scoring.results import group_rows, scored_as

CONTENT = {  # evalscope sends files as data URLs; what a video is, the server finds out itself
    "text": lambda text: ContentText(text=text),
    "image": lambda path: ContentImage(image=path),
    "video": lambda path: ContentVideo(video=path, format="mp4"),
}


class AmtAdapter(VisionLanguageAdapter):
    """The rows of `subset_list`; evalscope's subsets are the channels that are scored."""

    def load(self):
        """({channel: samples}, no examples); `InputError` for rows or media that are not there."""
        data, channels = data_root(), {}
        root = media_root(data)
        for row in (row for subset in self.subset_list for row in with_system(subset, data)):
            whole = swift_row(row, root, row.get("facts") or ())
            channels.setdefault(scored_as(row["channel"])[0], []).append(whole)
        common = {"sample_fields": self.record_to_sample, "limit": self.limit, "repeats": self.repeats}
        return DatasetDict({name: DictDataLoader(rows, **common).load() for name, rows in channels.items()}), None

    def record_to_sample(self, record):
        """The request of one row."""
        system = [ChatMessageSystem(content=record["system"])] if "system" in record else []
        # No sound: ms-swift's server reads no `input_audio`, as which evalscope sends it.
        user = ChatMessageUser(content=[CONTENT[kind](value) for kind, value in parts(record) if kind in CONTENT])
        return Sample(input=[*system, user], target=record["response"], metadata=record)

    def match_score(self, original_prediction, filtered_prediction, reference, task_state):
        """Of one answer, for evalscope's pages: 1 where its strict reading is the gold answer."""
        read = group_rows([_answered(task_state.metadata, original_prediction)]).values()
        right = float(any(channel.strict == channel.golds for channel in read))
        return Score(value={"right": right}, prediction=original_prediction)

    def aggregate_scores(self, sample_scores):
        """The strict figures of one channel; first `amt`, the figure that stands for it."""
        samples = sorted(sample_scores, key=lambda sample: sample.sample_id)
        rows = [_answered(sample.sample_metadata, sample.score.prediction) for sample in samples]
        self.answers = [*getattr(self, "answers", ()), *rows]
        figures = sorted(channel_metrics(rows).items(), key=lambda figure: figure[0] != "amt")
        return [AggScore(metric_name=name, score=value, num=len(rows)) for name, value in figures if value is not None]

    def _on_generate_report_end(self, report, output_dir, **kwargs):
        write_rows(Path(output_dir, "amt.jsonl"), self.answers)


def _answered(row: dict, response: str) -> dict:
    """A result row as `swift infer` writes it."""
    return row | {"labels": row["response"], "response": response}


def register() -> None:
    """Make `amt` known to evalscope; `InputError` for a release that ms-swift does not fit."""
    if not hasattr(EvalType, "SERVICE"):
        raise InputError("`swift eval` of ms-swift 4.6 needs an older evalscope: pip install 'evalscope==1.10.0'")
    if importlib.util.find_spec("opencompass") is None:
        # ms-swift asks for the names of its benchmarks whatever it evaluates; it needs numpy 1.
        OpenCompassBackendManager.list_datasets = staticmethod(lambda return_details=False: [])
    texts = {"pretty_name": "AMT", "description": "EmoVerse's tasks, strict figures per channel."}
    register_benchmark(BenchmarkMeta("amt", "amt", subset_list=["test"], metric_list=["right"], **texts))(AmtAdapter)
