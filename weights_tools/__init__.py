"""The mapping utility on weight files; ``kdnet weights`` and ``python -m weights_tools``."""
