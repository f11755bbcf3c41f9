"""The prototxt language: generated messages, the located reader, the writer, the upgrades."""

from kdnet.schema.fields import enum_name, field_names
from kdnet.schema.files import read_net, read_prototxt, read_solver
from kdnet.schema.fork_names import unknown_type
from kdnet.schema.forks import refuse_fork_fields
from kdnet.schema.reader import read_text
from kdnet.schema.source import Located, Path, SourceMap
from kdnet.schema.upgrade import upgrade_net, upgrade_solver
from kdnet.schema.upgrades import net_upgrades, snapshot_prefix_in, solver_upgrades
from kdnet.schema.writer import write_text

__all__ = [
    "Located",
    "Path",
    "SourceMap",
    "enum_name",
    "field_names",
    "net_upgrades",
    "read_net",
    "read_prototxt",
    "read_solver",
    "read_text",
    "refuse_fork_fields",
    "snapshot_prefix_in",
    "solver_upgrades",
    "unknown_type",
    "upgrade_net",
    "upgrade_solver",
    "write_text",
]
