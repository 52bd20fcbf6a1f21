"""A person's tables: reading files, understanding columns, the problem to solve. Knows ``estimators``."""
