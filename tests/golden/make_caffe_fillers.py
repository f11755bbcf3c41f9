"""Make caffe/fillers.npz with Caffe itself; README.md says how to set its environment up.

For each way of filling, quantiles of what Caffe fills a blob with, over several seeds.
"""

import os
from pathlib import Path

import numpy as np

os.environ |= {"GLOG_minloglevel": "2"}
HERE = Path(__file__).parent
SEEDS = 12
QUANTILES = np.linspace(0, 1, 201)
CONVOLUTION = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: [1, 20, 3, 3] }} }} }}
layer {{ name: "w" type: "Convolution" bottom: "x" top: "y"
  convolution_param {{ num_output: 40 kernel_size: 3 weight_filler {{ {} }} }} }}
"""
PRODUCT = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: [1, 500] }} }} }}
layer {{ name: "w" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param {{ num_output: 20 weight_filler {{ {} }} }} }}
"""
CASES = {
    "gaussian": 'type: "gaussian" mean: 2 std: 0.5',
    "gaussian/sparse": 'type: "gaussian" sparse: 10',
    "msra": 'type: "msra"',
    "msra/average": 'type: "msra" variance_norm: AVERAGE',
    "msra/fan_out": 'type: "msra" variance_norm: FAN_OUT',
    "positive_unitball": 'type: "positive_unitball"',
    "uniform": 'type: "uniform"',
    "uniform/range": 'type: "uniform" min: -3 max: 3',
    "xavier": 'type: "xavier"',
    "xavier/average": 'type: "xavier" variance_norm: AVERAGE',
    "xavier/fan_out": 'type: "xavier" variance_norm: FAN_OUT',
}


def filled(text, seed):
    import caffe

    path = HERE / "filler.tmp.prototxt"
    path.write_text(text)
    caffe.set_random_seed(seed)
    try:
        return caffe.Net(str(path), caffe.TEST).params["w"][0].data.copy()
    finally:
        path.unlink()


def main():
    found = {}
    for name, filler in CASES.items():
        net = PRODUCT if name == "positive_unitball" else CONVOLUTION
        values = [filled(net.format(filler), seed) for seed in range(1, SEEDS + 1)]
        found[name] = np.quantile(np.concatenate(values), QUANTILES).astype(np.float32)
        found[f"{name}/count"] = np.size(values)
    np.savez_compressed(HERE / "caffe" / "fillers.npz", **found)


if __name__ == "__main__":
    main()
