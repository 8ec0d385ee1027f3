"""Data that can only be iterated: replayed, or driven through its own state, with the same batches bit for bit."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

from mtf_trainer import rng
from mtf_trainer.data import make_source
from mtf_trainer.errors import TrainerError

SIZE = 23


def noise():
    return [random.random(), float(np.random.rand()), float(torch.rand(1))]


class Shuffled(IterableDataset):
    """Shards by worker, shuffles at the start, draws at every sample, and owns a generator."""

    def __init__(self, size=SIZE):
        self.size = size
        self.own = np.random.default_rng(1)
        self.epoch = None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        worker = get_worker_info()
        shard = list(range(self.size))[worker.id :: worker.num_workers] if worker else list(range(self.size))
        random.shuffle(shard)
        for index in shard:
            yield torch.tensor([index, self.epoch, self.own.random(), *noise()], dtype=torch.float64)


class Resumable(IterableDataset):
    """The same, with a state: it never goes back to samples it has given."""

    def __init__(self, size=SIZE, given=None):
        self.size = size
        self.own = random.Random(2)
        self.position = 0
        self.passes = 0
        self.given = given if given is not None else []

    def __iter__(self):
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        while first + self.position * step < self.size:
            index = first + self.position * step
            self.position += 1
            self.given.append(index)
            yield torch.tensor([index, self.passes, self.own.random(), *noise()], dtype=torch.float64)
        self.position = 0
        self.passes += 1

    def state_dict(self):
        return {"position": self.position, "passes": self.passes}

    def load_state_dict(self, state):
        self.position, self.passes = state["position"], state["passes"]


class Cursor:
    def __init__(self, size):
        self.size = size
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.position == self.size:
            raise StopIteration
        self.position += 1
        return torch.tensor([self.position, *noise()], dtype=torch.float64)

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class WithCursor(IterableDataset):
    """Its iterator has a state, itself it has none."""

    def __iter__(self):
        return Cursor(SIZE)


def noisy_collate(samples):
    return torch.stack(samples), noise()


class Again:
    """A bare iterable that draws while iterating."""

    def __init__(self):
        self.own = torch.Generator()

    def __iter__(self):
        order = random.sample(range(9), 9)
        for index in order:
            yield [index, float(torch.rand(1, generator=self.own)), *noise()]


class Old:
    """Iterable by index only."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index >= 5:
            raise IndexError
        return [index, *noise()]


def factory():
    for index in range(8):
        yield [index, *noise()]


class Walker:
    """A stateful iterable of batches."""

    def __init__(self):
        self.position = 0
        self.own = random.Random(0)

    def __iter__(self):
        while self.position < 9:
            self.position += 1
            yield [self.position, self.own.random(), *noise()]
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Stopped(Walker):
    """Loaded with the state of an epoch's end, it yields nothing the first time."""

    start = 0

    def __iter__(self):
        start, self.start = self.start, 0
        for self.position in range(start + 1, 10):
            yield [self.position, self.own.random(), *noise()]

    def load_state_dict(self, state):
        self.start = state["position"]


class Eager:
    """Draws when iterating begins, not at the first batch."""

    def __iter__(self):
        return iter([[index, *noise()] for index in random.sample(range(9), 9)])


PROCESS = {"0": {}, "2": {"num_workers": 2}, "2 persistent": {"num_workers": 2, "persistent_workers": True}}
LOADERS = {
    **{f"shuffled {name}": lambda kw=kw: DataLoader(Shuffled(), batch_size=4, **kw) for name, kw in PROCESS.items()},
    **{f"resumable {name}": lambda kw=kw: DataLoader(Resumable(), batch_size=4, **kw) for name, kw in PROCESS.items()},
    "collate 0": lambda: DataLoader(Shuffled(), batch_size=4, collate_fn=noisy_collate, drop_last=True),
    "collate 2": lambda: DataLoader(Shuffled(), batch_size=4, collate_fn=noisy_collate, num_workers=2),
    "no batches": lambda: DataLoader(Shuffled(9), batch_size=None),
    "list": lambda: [[1, 2], [3, 4], [5]],
    "iterable": Again,
    "by index": Old,
    "factory": lambda: factory,
    "stateful iterable": Walker,
    "stateful iterable at its end": Stopped,
    "eager iterable": Eager,
}


def flat(batch):
    if isinstance(batch, torch.Tensor):
        return batch.tolist()
    return [flat(each) for each in batch] if isinstance(batch, list | tuple) else batch


def rest(source):
    batches = []
    while True:
        try:
            batches.append(flat(source.next()))
        except StopIteration:
            return batches


def source_of(loader, seed=1, stream="train"):
    return make_source(loader, seed=seed, stream=stream)


def epochs_with_states(source, epochs):
    """Each epoch's batches, and the source's state before each batch and at the end."""
    whole, states = [], []
    for epoch in range(epochs):
        source.open(epoch)
        batches, before = [], [source.state_dict()]
        while True:
            try:
                batches.append(flat(source.next()))
            except StopIteration:
                before[-1] = source.state_dict()
                break
            before.append(source.state_dict())
        whole.append(batches)
        states.append(before)
    return whole, states


def check_every_position(make, positions=None):
    """From every position of the second epoch, a new source goes on as the first one did, into the third."""
    source = make()
    whole, states = epochs_with_states(source, 3)
    source.close()
    assert all(len(epoch) > 2 for epoch in whole)
    for k in positions or range(len(whole[1]) + 1):
        source = make()
        source.load_state_dict(states[1][k])
        rng.seed_everything(100 + k)
        before = rng.capture()
        if k < len(whole[1]):
            source.open(1, k)
            assert before.differing(rng.capture()) == []
            assert rest(source) == whole[1][k:]
        source.open(2)
        assert rest(source) == whole[2]
        source.close()


@pytest.mark.parametrize("kind", LOADERS)
def test_the_tail_from_every_position_equals_the_whole_epochs(kind):
    few = (1, 4, 6) if kind.endswith("2") else None
    check_every_position(lambda: source_of(LOADERS[kind]()), few)


@pytest.mark.parametrize("kind", ["shuffled 0", "resumable 0", "iterable", "factory", "stateful iterable", "collate 0"])
def test_what_the_model_draws_is_nothing_to_the_data(kind):
    def epoch(process_seed):
        rng.seed_everything(process_seed)
        source = source_of(LOADERS[kind]())
        source.open(0)
        batches = []
        while True:
            try:
                before = rng.capture()
                batches.append(flat(source.next()))
                assert before.differing(rng.capture()) == []
                noise()
            except StopIteration:
                return batches

    assert epoch(1) == epoch(2)


@pytest.mark.parametrize("kind", ["shuffled 0", "shuffled 2", "iterable", "factory"])
def test_draws_differ_between_epochs_seeds_and_streams(kind):
    def draws(seed, stream, epoch):
        source = source_of(LOADERS[kind](), seed=seed, stream=stream)
        source.open(epoch)
        batches = rest(source)
        source.close()
        return str(batches)

    assert len({draws(1, "train", 0), draws(2, "train", 0), draws(1, "val", 0), draws(1, "train", 1)}) == 4


def test_workers_draw_different_noise():
    source = source_of(DataLoader(Shuffled(), batch_size=None, num_workers=2))
    source.open(0)
    samples = rest(source)
    assert len({tuple(sample[2:]) for sample in samples}) == SIZE
    assert sorted(sample[0] for sample in samples) == list(range(SIZE))


@pytest.mark.parametrize("kind", ["resumable 0", "stateful iterable"])
def test_the_same_source_can_go_back(kind):
    source = source_of(LOADERS[kind]())
    source.open(0)
    whole = rest(source)
    for k in (3, 1, 1, 2, 0):
        source.open(0, k)
        assert flat(source.next()) == whole[k]


def test_an_epoch_that_was_left_early_is_not_continued_by_the_next():
    source = source_of(Walker())
    for epoch in (0, 1):
        source.open(epoch)
        assert [source.next()[0] for _ in range(3)] == [1, 2, 3]


def test_a_stateful_dataset_gives_no_sample_twice():
    given = []
    source = source_of(DataLoader(Resumable(), batch_size=4))
    source.open(0)
    source.next(), source.next()
    state = source.state_dict()
    source = source_of(DataLoader(Resumable(given=given), batch_size=4))
    source.load_state_dict(state)
    source.open(0, 2)
    source.next()
    assert given == [8, 9, 10, 11]


def test_replaying_is_said_once(caplog):
    caplog.set_level("INFO")
    source = source_of(Again())
    source.open(0, 2)
    source.open(0, 1)
    assert caplog.text.count("taking those before it again") == 1


def test_data_that_ends_before_the_position_is_an_error():
    source = source_of(factory)
    with pytest.raises(TrainerError, match="ends after 8 batches of epoch 1, but training stood at batch 9"):
        source.open(0, 9)
    source.open(0, 8)
    with pytest.raises(StopIteration):
        source.next()


@pytest.mark.parametrize("once", [iter([1, 2]), factory()])
def test_what_can_be_iterated_once_is_refused(once):
    with pytest.raises(TrainerError, match=r"iterated only once.*pass a list"):
        source_of(once)


@pytest.mark.parametrize("wrong", [None, 3])
def test_what_is_no_loader_is_refused(wrong):
    with pytest.raises(TrainerError, match=f"val loader must be .* found {type(wrong).__name__}"):
        source_of(wrong, stream="val")


def test_a_dataset_in_place_of_a_loader_is_refused():
    data = TensorDataset(torch.ones(4, 3))
    with pytest.raises(
        TrainerError, match=r"the val loader is a dataset, a TensorDataset: hand in DataLoader\(dataset"
    ):
        source_of(data, stream="val")
    assert source_of(Shuffled()).num_batches is None  # what can only be iterated may give batches


def test_lengths_are_known_only_for_sure():
    assert source_of([1, 2, 3]).num_batches == 3
    assert source_of(factory).num_batches is None
    assert source_of(DataLoader(Shuffled())).num_batches is None


def test_reading_before_opening_and_positions_below_zero_are_refused():
    with pytest.raises(TrainerError, match="not open"):
        source_of([1]).next()
    with pytest.raises(TrainerError, match="counted from 0"):
        source_of([1]).open(0, -1)


def test_fingerprints_are_plain():
    assert source_of([1, 2]).fingerprint() == {"kind": "iterable", "dataset": "list", "batches": 2}
    assert source_of(DataLoader(Resumable(), batch_size=3)).fingerprint() == {
        "kind": "iterable dataset",
        "dataset": "Resumable",
        "batch_size": 3,
        "drop_last": False,
        "num_workers": 0,
        "stateful": True,
    }


class Indexed(Dataset):
    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return torch.tensor([index, *noise()], dtype=torch.float64)


@pytest.mark.parametrize("workers", PROCESS)
@pytest.mark.parametrize("kind", [Shuffled, Resumable, WithCursor])
def test_the_loader_of_torchdata_over_an_iterable_goes_by_its_state(workers, kind):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    check_every_position(lambda: source_of(stateful(kind(), batch_size=4, **PROCESS[workers])), range(1, 6))


@pytest.mark.parametrize("workers", PROCESS)
def test_the_loader_of_torchdata_over_a_map_goes_by_position(workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    epochs = []
    for make in (stateful, DataLoader):
        source = source_of(make(Indexed(), batch_size=4, shuffle=True, **PROCESS[workers]))
        rng.seed_everything(0)
        source.open(3, 2)
        epochs.append(rest(source))
        source.close()
    assert epochs[0] == epochs[1]
    assert len(epochs[0]) == 4
