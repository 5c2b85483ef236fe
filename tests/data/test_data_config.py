"""The data configuration refuses what cannot work, naming value and remedy."""

import pytest
from pydantic import ValidationError

from data.config import DataConfig, InputConfig, StagingConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputConfig(side_min=300, side_max=256), "side_max=256 is below side_min=300"),
        (lambda: InputConfig(side_min=200, crop_size=224), "side_min=200 is below crop_size=224"),
        (lambda: InputConfig(crop_sise=224), "crop_sise"),
        (lambda: StagingConfig(max_bad_fraction=1.5), "less than or equal to 1"),
        (lambda: DataConfig(name="x", source="folder"), "source=folder needs path"),
        (lambda: DataConfig(name="digits", source="builtin", path="/x"), "has no meaning"),
        (lambda: DataConfig(name="fashion", source="builtin"), "nearest: fashion-mnist"),
        (lambda: DataConfig(name="a/b", source="folder", path="/x"), "pattern"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValidationError, match=message):
        make()
