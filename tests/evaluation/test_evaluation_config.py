"""Contradictions in the configuration of evaluation are refused with the field's name."""

import pytest
from pydantic import ValidationError

from evaluation.config import EvaluationConfig, TransferConfig


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (EvaluationConfig, {"multi_sides": ()}, "multi_sides is empty"),
        (EvaluationConfig, {"multi_sides": (256, 0)}, "sides of at least 1 pixel"),
        (TransferConfig, {"sides": ()}, "sides is empty"),
        (TransferConfig, {"svm_costs": ()}, "svm_costs is empty"),
        (TransferConfig, {"svm_costs": (0.0, 1.0)}, "svm_costs=.*: want values above 0"),
        (TransferConfig, {"sides": (-32,)}, "sides=.*: want values above 0"),
        (EvaluationConfig, {"side": 3}, "side"),
    ],
)
def test_an_impossible_value_is_refused(config, fields, message):
    with pytest.raises(ValidationError, match=message):
        config(**fields)
