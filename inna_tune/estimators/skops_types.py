"""What skops has to trust to load a fitted estimator: the types that one may hold, each of plain data."""

from inna_tune.engine import MemberState
from inna_tune.estimators.classifier import InnaClassifier
from inna_tune.estimators.dates import DatePlan
from inna_tune.estimators.encoder import TableEncoder
from inna_tune.estimators.ensemble import EnsembleClassifier, EnsembleRegressor
from inna_tune.estimators.levels import CodedPlan, OneHotPlan
from inna_tune.estimators.number_forms import NumberForm
from inna_tune.estimators.numbers import BlendedPlan, NumericPlan, SpikedPlan
from inna_tune.estimators.plans import DroppedPlan
from inna_tune.estimators.regressor import InnaRegressor
from inna_tune.estimators.schema import ColumnSchema, TableSchema
from inna_tune.estimators.text import TextPlan
from inna_tune.nets import LinearPath, TabularNet
from inna_tune.nets.categorical import CategoricalEmbedding
from inna_tune.nets.layers import MemberLinear
from inna_tune.nets.numeric import PBLDEmbedding, PeriodicEmbedding, PiecewiseEmbedding

SKOPS_TYPES: list[str] = [
    f"{kind.__module__}.{kind.__qualname__}"
    for kind in (
        *(InnaClassifier, InnaRegressor, EnsembleClassifier, EnsembleRegressor, MemberState),
        *(
            TableEncoder,
            DroppedPlan,
            NumericPlan,
            BlendedPlan,
            SpikedPlan,
            OneHotPlan,
            CodedPlan,
            DatePlan,
            TextPlan,
        ),
        *(TableSchema, ColumnSchema, NumberForm),
        *(TabularNet, MemberLinear, LinearPath, CategoricalEmbedding),
        *(PiecewiseEmbedding, PeriodicEmbedding, PBLDEmbedding),
    )
]
