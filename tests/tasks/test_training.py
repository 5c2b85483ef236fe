"""What surrounds training."""

import threading

import pytest
import torch

from tasks.training import DivergedError, _divergence_explained, _threads_kept


def test_a_training_that_diverged_says_which_setting_to_lower() -> None:
    with (
        pytest.raises(DivergedError, match=r"output is not finite.*learning_rate"),
        _divergence_explained(),
    ):
        raise FloatingPointError("the network's output is not finite")


def test_torch_has_its_threads_back_after_training() -> None:
    torch.set_num_threads(2)
    with _threads_kept():
        validation = threading.Thread(target=torch.set_num_threads, args=(1,))
        validation.start()
        validation.join()
        torch.set_num_threads(1)
    assert torch.get_num_threads() == 2
