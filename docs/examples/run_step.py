"""Train with nothing but ONNX Runtime and numpy: run the step that ``kdnet compile`` wrote.

    python run_step.py step.onnx batches.npz

The .npz holds an array for each data input, of shape (steps, *shape of the input). The file's
metadata says which output replaces which state input; the first state is inside the file.
"""

import json
import sys

import numpy as np
import onnxruntime as ort  # noqa: TID251  # what the example is about

options = ort.SessionOptions()
options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[1], options, providers=ort.get_available_providers())
pairs = session.get_modelmeta().custom_metadata_map.items()
meta = {key.removeprefix("kdnet."): json.loads(value) for key, value in pairs}
if meta.get("iter_size", 1) > 1:
    sys.exit("this net was compiled with iter_size > 1, into two files; here one is run")
with np.load(sys.argv[2]) as file:
    batches = {name: file[name].astype(np.float32) for name in meta["data"]}
steps = min(len(array) for array in batches.values())
random = np.random.default_rng(meta["seed"])
names = [output.name for output in session.get_outputs()]
state = {}
for step, rate in enumerate(meta["rates"][:steps]):
    feeds = {name: array[step] for name, array in batches.items()}
    feeds |= {name: random.random(shape, np.float32) for name, shape in meta["noise"].items()}
    feeds[meta["rate"]] = np.array(rate, np.float32)
    feeds |= {
        name: np.array(meta["scheduled"][step][name], np.float32) for name in meta["scalars"]
    }
    values = dict(zip(names, session.run(None, feeds | state), strict=True))
    state = {name: values[following] for name, following in meta["state"].items()}
    sys.stdout.write(f"step {step}: loss {values[meta['loss']]:.9g}\n")
