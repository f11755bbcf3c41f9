"""Data sources, the transformer, the prefetching feeder, and the tools that make databases."""

from kdnet.data.feeder import Feeder
from kdnet.data.source import Source, open_source, source_types, static_shapes

__all__ = ["Feeder", "Source", "open_source", "source_types", "static_shapes"]
