"""Column A-LRN's normalisation against the formula as Krizhevsky prints it."""

import torch

from models.config import ModelConfig
from models.normalisation import LocalResponseNorm
from models.vgg import Vgg
from tests.references.response_norm import local_response_norm


def test_it_is_the_printed_formula_at_every_position():
    maps = 60 * torch.rand(2, 9, 2, 3, generator=torch.Generator().manual_seed(0))
    normalised = LocalResponseNorm()(maps)
    for n in range(2):
        for y in range(2):
            for x in range(3):
                expected = local_response_norm(maps[n, :, y, x], n=5, alpha=1e-4, beta=0.75, k=2.0)
                torch.testing.assert_close(normalised[n, :, y, x], expected)


def test_alpha_is_not_divided_by_the_number_of_maps():
    # Five equal maps of 100: the middle one sums 5 * 100^2, so the printed formula divides by
    # (2 + 1e-4 * 50000)^0.75 = 7^0.75; the divided form would give 3^0.75.
    middle = LocalResponseNorm()(torch.full((1, 5, 1, 1), 100.0))[0, 2, 0, 0]
    torch.testing.assert_close(middle, torch.tensor(100 / 7**0.75))


def test_column_a_lrn_normalises_once_after_the_first_relu():
    with torch.device("meta"):
        features = Vgg(ModelConfig(name="A-LRN"), 10).features
    positions = [i for i, layer in enumerate(features) if isinstance(layer, LocalResponseNorm)]
    assert positions == [2]
