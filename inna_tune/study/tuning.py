"""`inna_tune.tables.predicting` under its former name, for the scripts that know it by that."""

from inna_tune.tables.predicting import predict_table

__all__ = ["predict_table"]
