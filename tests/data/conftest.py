"""One small staged data set for all tests that only read."""

import pytest

from data.staging import stage
from tests.data.pictures import images_of, write_tree
from tests.data.staged import config_of


@pytest.fixture(scope="session")
def pets(tmp_path_factory):
    """Staged cats and dogs, JPEG 20x16: 46 to train in 4 tars, 6 to test in one."""
    root = tmp_path_factory.mktemp("pets")
    tree = write_tree(root / "tree", images_of(num_train=23))
    return stage(config_of(tree, samples_per_tar=12), root).folder
