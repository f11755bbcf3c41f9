"""What to say of fields and layer types that only a fork of Caffe has, and kdnet has not."""

from __future__ import annotations

from collections.abc import Iterable

from kdnet.errors import did_you_mean

_SSD = "weiliu89/caffe (SSD)"
_RCNN = "rbgirshick/caffe-fast-rcnn"
_RFCN = "daijifeng001/caffe-rfcn"
_YOLO = "eric612/MobileNet-YOLO"
_INTEL = "intel/caffe"
_NVIDIA = "NVIDIA/caffe"
_TSN = "yjxiong/caffe"
_SEGNET = "alexgkendall/caffe-segnet"

# The layer type that reads it, and a fork that has both.
LAYER_FIELDS: dict[str, tuple[str, str]] = {
    "annotated_data_param": ("AnnotatedData", _SSD),
    "box_annotator_ohem_param": ("BoxAnnotatorOHEM", _RFCN),
    "center_loss_param": ("CenterLoss", "ydwen/caffe-face"),
    "cpm_transform_param": ("CPMData", "CMU-Perceptual-Computing-Lab/caffe_train"),
    "dense_image_data_param": ("DenseImageData", _SEGNET),
    "detection_evaluate_param": ("DetectionEvaluate", _SSD),
    "detection_output_param": ("DetectionOutput", _SSD),
    "detectnet_augmentation_param": ("DetectNetTransformation", _NVIDIA),
    "detectnet_groundtruth_param": ("DetectNetTransformation", _NVIDIA),
    "lstm_param": ("Lstm", "junhyukoh/caffe-lstm"),
    "margin_inner_product_param": ("MarginInnerProduct", "wy1iu/sphereface"),
    "multi_stage_meanfield_param": ("MultiStageMeanfield", "torrvision/crfasrnn"),
    "multibox_loss_param": ("MultiBoxLoss", _SSD),
    "prior_box_param": ("PriorBox", _SSD),
    "proposal_param": ("Proposal", "sanghoon/pva-faster-rcnn"),
    "psroi_pooling_param": ("PSROIPooling", _RFCN),
    "region_loss_param": ("RegionLoss", _YOLO),
    "reorg_param": ("Reorg", _YOLO),
    "roi_pooling_param": ("ROIPooling", _RCNN),
    "seg_data_param": ("SegData", _TSN),
    "video_data_param": ("VideoData", _TSN),
    "yolo_detection_output_param": ("YoloDetectionOutput", _YOLO),
    "yolov3_detection_output_param": ("Yolov3DetectionOutput", _YOLO),
    "yolov3_param": ("Yolov3", _YOLO),
}

# A fork that has the layer type, of types that read no parameter of their own.
_OTHER_TYPES = {
    "Gather": _TSN,
    "ImageLabelmapData": "s9xie/hed",
    "ImageSegData": "DeepLab",
    "SegAccuracy": "DeepLab",
    "SmoothL1LossOHEM": _RFCN,
    "SoftmaxWithLossOHEM": _RFCN,
}
TYPES: dict[str, str] = dict(LAYER_FIELDS.values()) | _OTHER_TYPES
"""A fork that has it, by layer type that kdnet does not have."""

# A fork that has the field, by message.
OTHER_FIELDS: dict[str, dict[str, str]] = {
    "BatchNormParameter": {
        "bias_filler": _NVIDIA,
        "filler": _INTEL,
        "scale_bias": f"{_NVIDIA}; a Scale layer with bias_term behind it does the same",
        "scale_filler": _NVIDIA,
    },
    "DropoutParameter": {
        "sample_weights_test": _SEGNET,
        "scale_train": "sanghoon/pva-faster-rcnn",
    },
    "LayerParameter": {"quantization_param": f"{_INTEL}, for layers in eight bits"},
    "LossParameter": {
        "class_weighting": _SEGNET,
        "pre_fixed_normalizer": _RFCN,
        "weight_by_label_freqs": f"{_SEGNET}; an InfogainLoss weighs classes, too",
    },
    "NetParameter": {"bn_stats_batch_size": _INTEL, "multinode": _INTEL},
    "SolverParameter": {
        "ap_version": _SSD,
        "eval_type": _SSD,
        "larc": _NVIDIA,
        "larc_eta": _NVIDIA,
        "larc_policy": _NVIDIA,
        "local_gw_ratio": _INTEL,
        "local_lr_auto": _INTEL,
        "richness": _TSN,
        "show_per_class_result": _SSD,
        "stageiter": _INTEL,
        "stagelr": _INTEL,
    },
    "TransformationParameter": {
        "distort_param": _SSD,
        "emit_constraint": _SSD,
        "expand_param": _SSD,
        "fix_crop": _TSN,
        "is_flow": _TSN,
        "max_distort": _TSN,
        "more_fix_crop": _TSN,
        "multi_scale": _TSN,
        "noise_param": _SSD,
        "random_aspect_ratio_param": _INTEL,
        "random_resize_param": _INTEL,
        "resize_param": _SSD,
        "scale_ratios": _TSN,
    },
}


def unknown_type(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Help lines for a layer type that kdnet does not have; empty when nothing can be said."""
    if name in TYPES:
        return (f"{TYPES[name]} has it; kdnet layers lists the layer types of kdnet",)
    return did_you_mean(name, known)


_STEM = "_param"
# Parameters of different layers share most of their letters: "roi_pooling", "pooling".
_NEAR = 0.82


def unknown_field(message: str, field: str, known: list[str]) -> tuple[str, ...]:
    """Help lines for a field that a message does not have; empty when nothing can be said.

    Args:
        message: the name of the message's type.
        field: the unknown field.
        known: the fields that the message has.
    """
    if message == "LayerParameter" and field in LAYER_FIELDS:
        reader, fork = LAYER_FIELDS[field]
        return (f"{fork} has it, for {reader}; kdnet layers lists the layer types of kdnet",)
    fork = OTHER_FIELDS.get(message, {}).get(field, "")
    if fork:
        return (f"a field of {fork}",)
    if message == "LayerParameter" and field.endswith(_STEM):
        return _parameters(field, known)
    return did_you_mean(field, known)


def _parameters(field: str, known: list[str]) -> tuple[str, ...]:
    stems = [name.removesuffix(_STEM) for name in known if name.endswith(_STEM)]
    near = did_you_mean(field.removesuffix(_STEM), stems, _NEAR)
    if near:
        return (near[0].replace('"?', f'{_STEM}"?'),)
    return ("kdnet layers lists the layer types of kdnet, and each one's parameters",)
