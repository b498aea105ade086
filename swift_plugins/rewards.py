"""The metrics during training: an eval metric and GRPO rewards for ms-swift, built from the parsers of `tasks`.

    swift sft …  --eval_strategy steps --eval_metric amt --val_dataset amt:dev
    swift rlhf … --rlhf_type grpo --reward_funcs amt_answer amt_format amt_pairs amt_aus      # configs/demo/grpo.yaml

Eval metric `amt`: the strict figures of compute_result.py per channel, as `eval_meld.mer_accuracy`, and `eval_amt`, the
mean over channels of the first figure of each (Acc2, weighted F1, F1). With `--predict_with_generate true` they are of
generated answers, and the best checkpoint is the one of the highest `eval_amt`; otherwise of teacher-forced ones (each
token predicted from the gold tokens before it): cheap, close for one-word answers, flattering for longer ones. The best
checkpoint is then that of the lowest loss, as everywhere in ms-swift, or with `--metric_for_best_model amt` as above.

A reward is between 0 and 1, or None where it does not apply to the row's task, which ms-swift leaves out of the sum:

amt_answer   the lenient reading is right: the label, all AUs, all pairs, the emotion that a reason names; of several
             labels or words (mlmer, ov) the F1
amt_format   the strict reading exists: the answer has the exact form
amt_pairs    F1 of the emotion-cause pairs (ecpe); nothing predicted where there is no cause is 1
amt_aus      F1 of the AUs that the phrases stand for (fer)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from swift.metrics import eval_metrics_map
from swift.metrics.base import EvalMetrics
from swift.rewards import orms
from swift.rewards.orm import ORM
from swift.utils import Serializer, get_logger

from swift_plugins import metrics
from swift_plugins.files import InputError
from swift_plugins.scoring import scores
from swift_plugins.scoring.results import group_rows
from swift_plugins.tasks import TASKS, Task, task_of
from swift_plugins.tasks.task import set_f1

logger = get_logger()


def _gold(channel: str, solution: str) -> tuple[Task, str, object]:
    """(task, dataset, gold); ValueError for a solution that is no answer of its channel."""
    task, dataset = task_of(channel)
    gold = task.strict(solution, dataset)
    if gold is None:
        raise ValueError(f"{solution!r} is not an answer of {channel}")
    return task, dataset, gold


def answer_reward(completion: str, channel: str, solution: str) -> float | None:
    """1 for a right answer in any form; None for free text, but for a reason (eri) whose gold names one emotion."""
    task, dataset, gold = _gold(channel, solution)
    return task.reward(gold, task.lenient(completion, dataset), dataset)


def format_reward(completion: str, channel: str, solution: str) -> float:
    """1 for an answer of the exact form, right or wrong."""
    task, dataset = task_of(channel)
    return float(task.strict(completion, dataset) is not None)


def part_reward(name: str, completion: str, channel: str, solution: str) -> float | None:
    """F1 of the parts of an answer, for the task whose reward has this name; None for other tasks."""
    task, dataset, gold = _gold(channel, solution)
    if task.part_reward != name:
        return None
    prediction = task.lenient(completion, dataset)
    return 0.0 if prediction is None else set_f1(task.members(gold), task.members(prediction))


REWARDS: dict[str, Callable[[str, str, str], float | None]] = {
    "amt_answer": answer_reward,
    "amt_format": format_reward,
    **{
        task.part_reward: functools.partial(part_reward, task.part_reward)
        for task in TASKS.values()
        if task.part_reward
    },
}


def _orm(name: str) -> type[ORM]:
    """A reward class as ms-swift wants it: called with lists, `channel` and `solution` being columns of the rows."""
    reward = REWARDS[name]

    def __call__(self, completions: Sequence[str], channel: Sequence[str], solution: Sequence[str], **_) -> list:
        return [reward(*row) for row in zip(completions, channel, solution, strict=True)]

    return type(name, (ORM,), {"__call__": __call__})  # its name is that of the curve


class AmtMetrics(EvalMetrics):
    """`--eval_metric amt`: {<channel>_<metric>: fraction}, strict; <channel>_unparsed of generated answers; amt.

    Raises `InputError` where nothing would ever be evaluated.
    """

    def __init__(self, args, trainer):
        super().__init__(args, trainer)
        if args.eval_strategy == "no":
            raise InputError("--eval_metric amt has no rows: it needs --val_dataset amt:dev and an --eval_strategy")
        if args.metric_for_best_model == "rouge-l":  # what ms-swift fills in for generated answers; it is none of ours
            args.metric_for_best_model = "amt"

    def preprocess_logits_for_metrics(self, logits, labels):
        """(batch, length, vocabulary) → (batch, length): the likeliest token, so that no logits are kept."""
        if self.args.predict_with_generate:  # texts, not logits
            return logits
        return (logits[0] if isinstance(logits, (list, tuple)) else logits).argmax(dim=-1)

    def compute_metrics(self, eval_prediction) -> dict[str, float]:
        """Figures of one evaluation; {} with a warning when predictions cannot be matched with rows."""
        dataset = self.trainer.eval_dataset
        rows = getattr(dataset, "dataset", dataset)  # without the lazy wrapper that would decode every clip again
        answers = self._answers(eval_prediction)
        if not hasattr(rows, "__len__") or len(rows) != len(answers):
            logger.warning_once("eval_metric amt: the rows behind the predictions are unknown, no figures per channel")
            return {}
        figures = channel_metrics(
            {key: row.get(key) for key in ("id", "facts", "channel", "messages", "images", "videos")}
            | {"response": response, "labels": gold}
            for row, (response, gold) in zip(rows, answers, strict=True)
            if row.get("channel")  # others are of another dataset
        )
        if self.args.predict_with_generate:
            return figures
        # A wrong label goes on with the gold's tokens, which makes a word of neither: wrong, but not unparsed.
        return {name: value for name, value in figures.items() if not name.endswith("_unparsed")}

    def _answers(self, eval_prediction) -> list[tuple[str, str]]:
        """(response, gold) per row."""
        predictions, labels = eval_prediction.predictions, eval_prediction.label_ids
        if self.args.predict_with_generate:  # ms-swift's own way of passing texts through gathered tensors
            return [
                (Serializer.from_tensor(prediction), Serializer.from_tensor(label))
                for prediction, label in zip(predictions, labels, strict=True)
            ]
        template, answers = self.trainer.template, []
        decode = template.tokenizer.decode
        ends = set(template.tokenizer.all_special_ids) if template.padding_free or template.packing else None
        for prediction, label in zip(predictions[:, :-1], labels[:, 1:], strict=True):
            for span in _spans(label, ends):
                pair = prediction[span], label[span]
                answers.append(tuple(decode(tokens, skip_special_tokens=True).strip() for tokens in pair))
        return answers


def _spans(labels: np.ndarray, ends: Collection[int] | None) -> list[np.ndarray]:
    """The places of each row's answer in (length,) labels.

    ends: where rows stand end to end, the tokens that end an answer. Of such batches ms-swift keeps the answered places
    alone, so that nothing else stands between two answers.
    """
    places = np.flatnonzero(labels != -100)
    if ends is None:
        return [places]
    cuts = np.flatnonzero(np.isin(labels[places], list(ends))) + 1
    return [span for span in np.split(places, cuts) if len(span)]


def channel_metrics(rows: Iterable[dict]) -> dict[str, float]:
    """{<channel>_<metric>: fraction} of result rows, strict reading; rows whose gold cannot be read are left out."""
    figures, firsts = {}, []
    for name, channel in group_rows(rows).items():
        block = scores.score_channel(channel)
        strict = scores.flatten(block["strict"])
        firsts.append(next(strict[metric] for metric, _ in channel.task.headlines if metric in strict))
        for metric, value in strict.items():
            figures[f"{name}_{metric.replace(' ', '_')}"] = value
        figures[f"{name}_unparsed"] = metrics.ratio(block["unparsed"], block["n"])
    if firsts:
        figures["amt"] = sum(firsts) / len(firsts)
    return figures


def register() -> None:
    """Make the eval metric `amt` and the rewards `amt_*` known to ms-swift."""
    eval_metrics_map["amt"] = AmtMetrics
    for name in REWARDS:
        orms[name] = _orm(name)
