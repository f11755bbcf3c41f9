"""The parameter store: weight files, fillers, the load audit and the keyed random generator."""

from typing import TYPE_CHECKING

from kdnet.lazily import offered

if TYPE_CHECKING:
    from kdnet.weights.audit import Audit, AuditRow, Target, assign, audit_weights
    from kdnet.weights.blobs import decode_blob
    from kdnet.weights.files import atomic_write
    from kdnet.weights.fillers import check_filler, fill, filler_names, is_random_filler
    from kdnet.weights.formats.caffemodel import encode_blob, write_caffemodel
    from kdnet.weights.model import LayerBlobs, WeightFile
    from kdnet.weights.random import philox
    from kdnet.weights.reading import read_weights, stream_weights
    from kdnet.weights.wire import WireError
    from kdnet.weights.writing import Written, format_names, write_weights
else:
    __getattr__, __dir__ = offered(__name__)

__all__ = [
    "Audit",
    "AuditRow",
    "LayerBlobs",
    "Target",
    "WeightFile",
    "WireError",
    "Written",
    "assign",
    "atomic_write",
    "audit_weights",
    "check_filler",
    "decode_blob",
    "encode_blob",
    "fill",
    "filler_names",
    "format_names",
    "is_random_filler",
    "philox",
    "read_weights",
    "stream_weights",
    "write_caffemodel",
    "write_weights",
]
