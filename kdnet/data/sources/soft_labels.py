"""SoftLabels: the answers of a teacher that is not there."""

from __future__ import annotations

import numpy as np

from kdnet.data.answers import REST, open_answers
from kdnet.data.cache import Rows
from kdnet.data.content import text_hash
from kdnet.data.datum import Shape
from kdnet.data.following import FollowingSource
from kdnet.data.items import check_size, check_tops, positive
from kdnet.data.located import blamed_on, existing, refuse
from kdnet.data.source import Floats, source
from kdnet.data.top_k import LOGITS, PROBABILITIES, whole
from kdnet.errors import DataError
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import write_text

LEAST = np.float32(1e-12)

_PARAM = "soft_labels_param"
_SOURCE = (_PARAM, "source")
_FORMS = {
    pb.SoftLabelsParameter.LOGITS: LOGITS,
    pb.SoftLabelsParameter.PROBABILITIES: PROBABILITIES,
}


@source("SoftLabels")
class SoftLabels(FollowingSource):
    """Rows of a file of answers, in the order in which another data layer shows its records.

    Parameters: source, dataset ("logits"), num_classes; of (the only data layer above);
        form (LOGITS), top_form (as form); top_k (all), floor; batch_size (that of the layer).
    Differs from Caffe: the layer is kdnet's own.
    Faults: no-data-source, missing-data-source, no-followed-layer, answer-count, answer-shape,
        answer-classes, answers-without-rest, answers-without-classes, item-shape, and those of
        the file.
    """

    params_field = _PARAM

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape
        super().__init__(layer, seed=seed)
        self._classes = _check(layer)
        param = layer.message.soft_labels_param
        path = existing(layer, param.source, *_SOURCE)
        with blamed_on(layer, *_SOURCE):
            self._answers = open_answers(path, param.dataset, top_k=param.top_k > 0)
        try:
            self._check_row()
        except DataError:
            self._answers.close()
            raise

    def _check_row(self) -> None:
        """The file's rows have the classes, or the k classes, that are stated."""
        param = self.layer.message.soft_labels_param
        row = [array[0] for array in self._read(np.zeros(1, np.int64))]
        wanted = param.top_k or self._classes
        for name, values in zip(self._answers.names[:2], row[:2], strict=False):
            if values.size != wanted:
                at = "top_k" if param.top_k else "num_classes"
                text = f'rows of "{name}" have {values.size} values, but {at} is {wanted}'
                refuse(self.layer, "answer-shape", text, _PARAM, at)
        bare = param.top_k and len(row) < 3 and param.form == pb.SoftLabelsParameter.LOGITS
        if bare and not param.HasField("floor"):
            text = f'"{param.source}" has no "{param.dataset}{REST}", so the other logits are open'
            hint = ("give floor, the logit of every class that is not among the top_k",)
            refuse(self.layer, "answers-without-rest", text, *_SOURCE, help=hint)

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shape when batch_size is stated."""
        del shape
        classes = _check(layer)
        size = layer.message.soft_labels_param.batch_size
        return ((size, classes),) if size else None

    def accept(self, name: str, count: int, batch_size: int) -> None:
        """An answer a record.

        Raises:
            DataError: answer-count.
        """
        if count != self._answers.count:
            text = f'{self._answers.count} answers for the {count} records of layer "{name}"'
            refuse(self.layer, "answer-count", text, *_SOURCE)
        check_size(self.layer, (batch_size, self._classes))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(N, classes)."""
        return ((len(self.records(0)), self._classes),)

    @property
    def record_count(self) -> int:
        """A record an answer."""
        return self._answers.count

    def identity(self) -> dict[str, str]:
        """The file's contents and how they are read."""
        param = pb.SoftLabelsParameter()
        param.CopyFrom(self.layer.message.soft_labels_param)
        for field in ("source", "of", "batch_size"):
            param.ClearField(field)
        contents = text_hash(self._answers.content(), write_text(param))
        return {"type": self.layer.type, "contents": contents}

    def batch(self, index: int) -> tuple[Floats, ...]:
        """The answers to the records of batch ``index``."""
        rows = self.records(index)
        arrays = self._read(rows)
        param = self.layer.message.soft_labels_param
        scores = self._whole(rows, arrays) if param.top_k else arrays[0].reshape(len(rows), -1)
        form = _FORMS[param.form]
        top_form = _FORMS[param.top_form] if param.HasField("top_form") else form
        return (np.ascontiguousarray(_as(scores.astype(np.float32), form, top_form)),)

    def close(self) -> None:
        """Release the file."""
        self._answers.close()

    def _read(self, rows: Rows) -> tuple[Floats, ...]:
        with blamed_on(self.layer, *_SOURCE):
            return self._answers.read(rows)

    def _whole(self, rows: Rows, arrays: tuple[Floats, ...]) -> Floats:
        """Scores of all classes from those of some."""
        param, count = self.layer.message.soft_labels_param, self._classes
        values, classes = (array.reshape(len(rows), -1) for array in arrays[:2])
        wrong = ~((classes >= 0) & (classes < count) & (classes == np.trunc(classes)))
        if wrong.any():
            place = int(np.argmax(wrong.any(axis=1)))
            found = f"{classes[place][wrong[place]][0]:g}"
            text = f"record {rows[place]} has an answer for class {found} of {count}"
            refuse(self.layer, "answer-classes", text, *_SOURCE)
        form = _FORMS[param.form]
        if len(arrays) > 2:
            rest = arrays[2].reshape(len(rows))
        elif form == PROBABILITIES:
            rest = np.maximum(1 - values.sum(axis=1, dtype=np.float32), 0)
        else:
            others = max(1, count - param.top_k)
            rest = np.full(len(rows), param.floor + np.log(others))
        floats = values.astype(np.float32), rest.astype(np.float32)
        return whole(floats[0], classes.astype(np.int32), floats[1], count=count, form=form)


def _as(scores: Floats, form: str, wanted: str) -> Floats:
    """Logits as probabilities, or the other way round."""
    if form == wanted:
        return scores
    if wanted == LOGITS:
        return np.log(np.maximum(scores, LEAST))
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _check(layer: LayerModel) -> int:
    """The number of classes; more than any blob holds is refused."""
    check_tops(layer, 1, 1)
    param = layer.message.soft_labels_param
    classes = positive(layer, param.num_classes, _PARAM, "num_classes")
    if param.top_k > classes:
        text = f"top_k is {param.top_k} of {classes} classes"
        refuse(layer, "answer-shape", text, _PARAM, "top_k")
    check_size(layer, (max(1, param.batch_size), classes))
    return classes
