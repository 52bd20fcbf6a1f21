"""`inna_tune.tables` under its former name, for the scripts that know it by that."""

from inna_tune.tables.problem import TableError, make_problem
from inna_tune.tables.reading import read_table

__all__ = ["TableError", "make_problem", "read_table"]
