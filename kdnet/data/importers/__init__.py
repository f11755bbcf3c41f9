"""Readers of published image collections, for `kdnet data lmdb`; one kind a file."""
