"""Memory of mini-batches: used again when nobody holds it, and never before."""

import errno
import mmap
import threading

import torch

from data.recycled_memory import RecycledMemory


def test_memory_is_taken_again_once_the_tensor_is_gone() -> None:
    memory = RecycledMemory()
    first = memory.take(1000)
    place = first.data_ptr()
    del first
    assert [memory.take(1000).data_ptr() for _ in range(5)] == [place] * 5


def test_a_view_keeps_it_from_being_taken() -> None:
    memory = RecycledMemory()
    view = memory.take(1000).view(10, 100).permute(1, 0)[3:5]
    view.fill_(7.0)
    memory.take(1000).fill_(1.0)
    assert bool((view == 7.0).all())


def test_what_autograd_has_saved_stays() -> None:
    memory = RecycledMemory()
    weight = torch.ones(1000, requires_grad=True)
    loss = (memory.take(1000).fill_(3.0) * weight).sum()
    memory.take(1000).fill_(0.0)
    loss.backward()
    assert weight.grad is not None
    assert bool((weight.grad == 3.0).all())


def test_as_many_buffers_as_were_held_at_once() -> None:
    memory = RecycledMemory()
    held = [memory.take(10) for _ in range(3)]
    places = {tensor.data_ptr() for tensor in held}
    assert len(places) == 3
    held.clear()
    again = [memory.take(10) for _ in range(3)]
    assert {tensor.data_ptr() for tensor in again} == places


def test_a_smaller_one_fits_and_a_larger_one_gets_new_memory() -> None:
    memory = RecycledMemory()
    place = memory.take(1000).data_ptr()
    small = memory.take(600)
    assert small.shape == (600,)
    assert small.data_ptr() == place
    large = memory.take(5000).fill_(1.0)
    assert large.sum() == 5000.0
    del large
    del small  # too small by now: not kept
    assert memory.take(5000).shape == (5000,)
    assert memory.take(4000).fill_(2.0).sum() == 8000.0


def test_it_begins_at_a_page() -> None:
    assert RecycledMemory().take(100).data_ptr() % mmap.PAGESIZE == 0


def test_a_kernel_without_large_pages_will_do(monkeypatch) -> None:
    asked = []

    class Plain(mmap.mmap):
        def madvise(self, option: int) -> None:  # type: ignore[override]
            asked.append(option)
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("data.recycled_memory.mmap.mmap", Plain)
    assert RecycledMemory().take(1000).fill_(2.0).sum() == 2000.0
    assert len(asked) == 1


def test_tensors_outlive_the_pool() -> None:
    kept = RecycledMemory().take(1000).fill_(5.0)
    assert kept.sum() == 5000.0


def test_threads_never_share_a_buffer() -> None:
    memory = RecycledMemory()
    wrong = []

    def work(number: int) -> None:
        for _ in range(300):
            mine = memory.take(4096).fill_(number)
            if not bool((mine == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
