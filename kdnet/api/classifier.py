"""``kdnet.Classifier``: class scores of images, as pycaffe's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.api.images import Look, transformer_of
from kdnet.api.models import FilePath, Model
from kdnet.api.net import Net
from kdnet.io import Floats, resize_image
from kdnet.io import oversample as ten_crops
from kdnet.schema import kdnet_pb2 as pb

Array = NDArray[Any]


class Classifier(Net):
    """A net in TEST phase that is handed images.

    Args:
        model_file: the net; its first input takes the images.
        pretrained_file: its weights.
        image_dims: height and width to which images are resized before they are cropped; the
            input's own by default.
        mean: what :meth:`kdnet.io.Transformer.set_mean` takes.
        input_scale: what images are multiplied by at the end.
        raw_scale: what images, in [0, 1], are multiplied by at first.
        channel_swap: (2, 1, 0) for a net that was trained on BGR.

    Attributes:
        transformer: prepares images.
        image_dims: height and width before the crop.
        crop_dims: height and width of the input.
    """

    def __init__(  # noqa: PLR0913, PLR0917, RUF100  # pycaffe's signature
        self,
        model_file: Model,
        pretrained_file: FilePath | None = None,
        image_dims: Sequence[int] | None = None,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, phase=pb.TEST, weights=pretrained_file)
        look = Look(mean, input_scale, raw_scale, channel_swap)
        self.transformer = transformer_of(self, look)
        shape = self.blobs[self.inputs[0]].shape
        self.crop_dims = shape[2:]
        self.image_dims = tuple(image_dims) if image_dims else shape[2:]

    def predict(self, inputs: Sequence[Array], oversample: bool = True) -> Floats:  # noqa: FBT001, FBT002  # pycaffe's signature
        """Scores (N, classes) of N images (H, W, K) in [0, 1].

        Args:
            inputs: the images, of any sizes.
            oversample: average over ten crops instead of taking the one in the middle.
        """
        images = np.stack([resize_image(image, self.image_dims) for image in inputs])
        name, crop = self.inputs[0], ten_crops if oversample else _middle
        crops = crop(images, self.crop_dims)
        ready = np.stack([self.transformer.preprocess(name, one) for one in crops])
        scores = self.forward_all(None, **{name: ready})[self.outputs[0]]
        if not oversample:
            return scores
        found: Floats = scores.reshape(len(images), 10, -1).mean(1)
        return found


def _middle(images: Floats, dims: Sequence[int]) -> Floats:
    top, left = (
        int((size - new) / 2.0) for size, new in zip(images.shape[1:3], dims, strict=True)
    )
    return images[:, top : top + dims[0], left : left + dims[1]]
