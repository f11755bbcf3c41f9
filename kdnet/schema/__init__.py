"""The prototxt language: generated messages, the located reader, the writer, the upgrades."""
