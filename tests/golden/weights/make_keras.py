"""Write the Keras files here, and what the net computes; run with Keras 3 on any backend.

python make_keras.py
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

HERE = Path(__file__).parent


def main() -> None:
    keras.utils.set_random_seed(7)
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((6, 5, 2)),
            layers.Conv2D(3, 3, name="conv"),
            layers.BatchNormalization(name="bn", epsilon=1e-3),
            layers.DepthwiseConv2D(2, depth_multiplier=2, name="depth"),
            layers.PReLU(shared_axes=[1, 2], name="act"),
            layers.SeparableConv2D(4, 2, name="sep"),
            layers.Conv2DTranspose(3, 2, name="up"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.5),
            layers.Dense(5, name="fc"),
            layers.Reshape((1, 5)),
            layers.LSTM(4, return_sequences=True, name="lstm"),
        ]
    )
    rng = np.random.default_rng(7)
    net.set_weights(
        [
            rng.uniform(0.1, 1, w.shape).astype(w.dtype) - 0.4 * (w.ndim > 1)
            for w in net.get_weights()
        ]
    )
    x = rng.normal(size=(2, 6, 5, 2)).astype(np.float32)
    np.savez_compressed(HERE / "keras.npz", x=x, y=np.asarray(net.predict(x, verbose=0)))
    net.save(HERE / "keras_model.h5", include_optimizer=False)
    net.save_weights(HERE / "keras.weights.h5")


if __name__ == "__main__":
    main()
