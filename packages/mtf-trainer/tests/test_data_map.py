"""Map-style data: any loader, any position, any number of workers, the same batches bit for bit."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from mtf_trainer import rng
from mtf_trainer.data import make_source
from mtf_trainer.errors import TrainerError

SIZE = 22


class Augmented(Dataset):
    """Every sample draws from the three global streams."""

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), float(torch.rand(1))], dtype=torch.float64)


class Owner(Augmented):
    """Generators of its own of every kind, some nested, one made at the first access, one of the module."""

    def __init__(self):
        self.generator = torch.Generator()
        self.steps = [{"python": random.Random(0)}, (np.random.RandomState(1),)]
        self.numpy = np.random.default_rng(2)
        self.late = None
        inner = random.Random(3)
        self.closure = lambda: inner.gauss(0, 1)

    def __getitem__(self, index):
        if self.late is None:
            self.late = np.random.default_rng(4)
        own = [
            float(torch.rand(1, generator=self.generator)),
            self.steps[0]["python"].random(),
            self.steps[1][0].randn(1 + index % 2).sum(),
            self.numpy.random(),
            self.late.random(),
            self.closure(),
            MODULE_GENERATOR.random(),
        ]
        return torch.cat([super().__getitem__(index), torch.tensor(own, dtype=torch.float64)])


MODULE_GENERATOR = np.random.default_rng(9)


def noisy_collate(samples):
    return torch.stack(samples), torch.rand(2), random.random(), np.random.rand()


def seeding_init(worker):
    np.random.seed(torch.initial_seed() % 2**32)
    torch.utils.data.get_worker_info().dataset.steps.append(worker)


class Lengths(Sampler):
    """Draws from global streams and its own, lazily, shuffling a list in place and counting its epochs."""

    def __init__(self):
        self.order = list(range(SIZE))
        self.epoch = 0
        self.own = random.Random(5)

    def __len__(self):
        return SIZE

    def __iter__(self):
        self.epoch += 1
        random.shuffle(self.order)
        for index in self.order:
            offset = int(np.random.randint(SIZE)) + int(torch.randint(SIZE, (1,))) + self.own.randrange(SIZE)
            yield (index + offset + self.epoch) % SIZE


class Endless(Sampler):
    def __iter__(self):
        while True:
            yield int(torch.randint(SIZE, (1,)))


class Buckets(Sampler):
    def __len__(self):
        return 6

    def __iter__(self):
        for _ in range(6):
            yield random.sample(range(SIZE), random.randrange(1, 5))


LOADERS = {
    "sequential": lambda **kw: DataLoader(Augmented(), batch_size=4, **kw),
    "shuffle": lambda **kw: DataLoader(Augmented(), batch_size=4, shuffle=True, **kw),
    "drop_last": lambda **kw: DataLoader(Augmented(), batch_size=4, shuffle=True, drop_last=True, **kw),
    "user generator": lambda **kw: DataLoader(
        Augmented(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3), **kw
    ),
    "more than one pass": lambda **kw: DataLoader(
        Augmented(), batch_size=4, sampler=RandomSampler(range(SIZE), num_samples=30), **kw
    ),
    "replacement": lambda **kw: DataLoader(
        Augmented(), batch_size=4, sampler=RandomSampler(range(SIZE), replacement=True), **kw
    ),
    "weighted": lambda **kw: DataLoader(
        Augmented(), batch_size=4, sampler=WeightedRandomSampler([1.0 + i for i in range(SIZE)], 18), **kw
    ),
    "subset sampler": lambda **kw: DataLoader(
        Augmented(), batch_size=4, sampler=SubsetRandomSampler(range(3, 20)), **kw
    ),
    "distributed": lambda **kw: DataLoader(
        Augmented(), batch_size=2, sampler=DistributedSampler(range(SIZE), num_replicas=3, rank=1), **kw
    ),
    "list sampler": lambda **kw: DataLoader(Augmented(), batch_size=4, sampler=[3, 1, 4, 1, 5, 9, 2], **kw),
    "own sampler": lambda **kw: DataLoader(Augmented(), batch_size=4, sampler=Lengths(), **kw),
    "own batch sampler": lambda **kw: DataLoader(Augmented(), batch_sampler=Buckets(), **kw),
    "batch sampler over own": lambda **kw: DataLoader(
        Augmented(), batch_sampler=BatchSampler(Lengths(), 5, drop_last=True), **kw
    ),
    "no batches": lambda **kw: DataLoader(Subset(Augmented(), range(7)), batch_size=None, shuffle=True, **kw),
    "noisy collate": lambda **kw: DataLoader(Augmented(), batch_size=4, collate_fn=noisy_collate, **kw),
    "owner": lambda **kw: DataLoader(Owner(), batch_size=4, shuffle=True, **kw),
    "worker init": lambda **kw: DataLoader(Owner(), batch_size=4, worker_init_fn=seeding_init, **kw),
}
WORKERS = {
    "0": {},
    "2": {"num_workers": 2},
    "2 persistent": {"num_workers": 2, "persistent_workers": True},
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


def rest_with_streams(source):
    """The batches left, and the process's streams before each: what a trainer saves between two batches."""
    batches, streams = [], []
    while True:
        streams.append(rng.capture())
        try:
            batches.append(flat(source.next()))
        except StopIteration:
            return batches, streams


def source_of(loader, seed=1, stream="train", **kw):
    return make_source(loader, seed=seed, stream=stream, **kw)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("workers", WORKERS)
def test_the_tail_from_every_position_equals_the_whole_epochs(kind, workers):
    """Each tail comes from a source that has lived differently, or not at all."""
    make = lambda: source_of(LOADERS[kind](**WORKERS[workers]))  # noqa: E731
    rng.seed_everything(0)
    source = make()
    source.open(0)
    source.next()
    source.open(1)
    state = source.state_dict()
    whole, streams = rest_with_streams(source)
    assert len(whole) == source.num_batches or kind == "own batch sampler"
    positions = range(len(whole) + 1) if workers != "2" else (0, 1, len(whole))
    for number, k in enumerate(positions):
        if number % 3 == 0:
            source.close()
            source = make()
            source.load_state_dict(state)
        rng.seed_everything(99 + k)
        before = rng.capture()
        source.open(1, k)
        assert before.differing(rng.capture()) == []
        if workers == "0":
            rng.restore(streams[k])
        assert rest(source) == whole[k:]
    source.close()


@pytest.mark.parametrize("kind", [kind for kind in LOADERS if kind != "worker init"])
def test_the_number_of_workers_changes_nothing(kind):
    epochs = []
    for workers in (1, 2):
        source = source_of(LOADERS[kind](num_workers=workers))
        source.open(2)
        epochs.append(rest(source))
    assert epochs[0] == epochs[1]


@pytest.mark.parametrize("kind", ["shuffle", "replacement", "weighted", "own sampler", "own batch sampler"])
def test_order_differs_between_epochs_seeds_and_streams_and_not_otherwise(kind):
    def order(seed, stream, epoch):
        source = source_of(LOADERS[kind](), seed=seed, stream=stream)
        source.open(epoch)
        return str([[row[0] for row in batch] for batch in rest(source)])

    places = list(itertools.product((1, 2), ("train", "val"), (0, 1)))
    assert len({order(*place) for place in places}) == len(places)
    assert all(order(*place) == order(*place) for place in places)


@pytest.mark.parametrize("kind", ["shuffle", "more than one pass", "subset sampler", "sequential", "drop_last"])
def test_samples_are_those_of_the_loader(kind):
    source = source_of(LOADERS[kind]())
    source.open(0)
    mine = sorted(row[0] for batch in rest(source) for row in batch)
    theirs = sorted(row[0] for batch in LOADERS[kind]() for row in batch.tolist())
    if kind == "drop_last":
        assert len(mine) == len(theirs) == 20
        assert len(set(mine)) == 20
    elif kind == "more than one pass":
        assert len(mine) == 30
        assert set(mine) == set(range(SIZE))
    else:
        assert mine == theirs


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("size", [2, 7, 12])
def test_a_distributed_sampler_deals_as_torch_does(shuffle, drop_last, size):
    data = TensorDataset(torch.arange(size))
    for rank in range(5):
        sampler = DistributedSampler(data, num_replicas=5, rank=rank, shuffle=shuffle, drop_last=drop_last, seed=3)
        if len(sampler) == 0:
            continue
        source = source_of(DataLoader(data, batch_size=2, sampler=sampler))
        source.open(4)
        mine = [index for batch in rest(source) for index in batch[0]]
        sampler.set_epoch(4)
        assert mine == list(sampler)


def test_a_samplers_own_count_of_epochs_is_carried_through_the_state():
    def run(cut):
        loader = DataLoader(range(SIZE), batch_size=4, sampler=Lengths())
        source = source_of(loader)
        tail = []
        for epoch in range(3):
            source.open(epoch)
            for k in range(6):
                if (epoch, k) == cut:
                    state = source.state_dict()
                    source = source_of(DataLoader(range(SIZE), batch_size=4, sampler=Lengths()))
                    source.load_state_dict(state)
                    source.open(epoch, k)
                tail.append(flat(source.next()))
            assert rest(source) == []
        assert source._loader.sampler.epoch == 3
        return tail

    whole = run(None)
    for cut in itertools.product(range(3), range(6)):
        assert run(cut) == whole


def test_the_users_loader_is_left_as_it_was():
    generator = torch.Generator().manual_seed(3)
    sampler = Lengths()
    shuffled = DataLoader(Augmented(), batch_size=4, shuffle=True, generator=generator, num_workers=1)
    own = DataLoader(Augmented(), batch_size=4, sampler=sampler)
    before = [dict(vars(shuffled)), dict(vars(own)), generator.get_state().tolist(), sampler.own.getstate()]
    for loader in (shuffled, own):
        source = source_of(loader)
        source.open(0, 1)
        rest(source)
        source.close()
    assert [dict(vars(shuffled)), dict(vars(own)), generator.get_state().tolist(), sampler.own.getstate()] == before
    assert sampler.order == list(range(SIZE))


class Counted(Dataset):
    def __init__(self, size):
        self.size = size
        self.fetched = []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.fetched.append(index)
        return index


@pytest.mark.parametrize("sampler", [None, Lengths()])
def test_reaching_a_batch_fetches_none_before_it(sampler):
    data = Counted(SIZE)
    source = source_of(DataLoader(data, batch_size=4, sampler=sampler, shuffle=sampler is None))
    source.open(0, 4)
    assert data.fetched == []
    batch = source.next().tolist()
    assert data.fetched == batch


def test_ten_million_samples_are_not_enumerated():
    data = Counted(10**7)
    source = source_of(DataLoader(data, batch_size=10, sampler=SequentialSampler(data)))
    source.open(0, 999_999)
    assert rest(source) == [list(range(9_999_990, 10**7))]

    class NoList(torch.Tensor):
        def tolist(self):
            assert len(self) < 10_000  # a block, and no more
            return super().tolist()

    source = source_of(DataLoader(data, batch_size=10, shuffle=True))
    randperm, torch.randperm = torch.randperm, lambda *a, **k: randperm(*a, **k).as_subclass(NoList)
    try:
        source.open(0, 999_998)
        assert len(rest(source)) == 2
    finally:
        torch.randperm = randperm
    assert len(data.fetched) == 30


def test_an_endless_sampler_is_read_as_far_as_needed():
    make = lambda: source_of(DataLoader(range(SIZE), batch_size=4, sampler=Endless()))  # noqa: E731
    source = make()
    assert source.num_batches is None
    source.open(0)
    batches = [flat(source.next()) for _ in range(50)]
    source = make()
    source.open(0, 37)
    assert [flat(source.next()) for _ in range(13)] == batches[37:]


def test_batches_follow_the_process_streams_without_workers_and_not_with():
    def epoch(workers, process_seed):
        rng.seed_everything(process_seed)
        source = source_of(LOADERS["sequential"](num_workers=workers))
        source.open(0)
        return rest(source)

    assert epoch(0, 1) != epoch(0, 2)
    assert epoch(1, 1) == epoch(1, 2)


class Stateful(Dataset):
    """Counts its samples: a sample depends on how many came before."""

    def __init__(self):
        self.count = 0

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        self.count += 1
        return index * 1000 + self.count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_stateful_dataset_without_workers_goes_on_from_its_state():
    source = source_of(DataLoader(Stateful(), batch_size=4, shuffle=True))
    source.open(0)
    source.next(), source.next()
    state = source.state_dict()
    tail = rest(source)
    source = source_of(DataLoader(Stateful(), batch_size=4, shuffle=True))
    source.load_state_dict(state)
    source.open(0, 2)
    assert rest(source) == tail


def test_a_stateful_dataset_inside_workers_is_spoken_of(caplog):
    source_of(DataLoader(Stateful(), num_workers=1))
    assert "Stateful has a state_dict" in caplog.text
    assert "num_workers=0" in caplog.text


class EpochAware(Dataset):
    epoch = None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index + 100 * self.epoch


@pytest.mark.parametrize("workers", WORKERS)
def test_a_dataset_is_told_the_epoch(workers):
    source = source_of(DataLoader(EpochAware(), batch_size=2, **WORKERS[workers]))
    for epoch in (1, 3):
        source.open(epoch)
        assert rest(source) == [[100 * epoch, 100 * epoch + 1], [100 * epoch + 2, 100 * epoch + 3]]
    source.close()


class Unrepeatable(Augmented):
    def __init__(self):
        self.noise = {"source": random.SystemRandom()}

    def __getitem__(self, index):
        return self.noise["source"].random()


@pytest.mark.parametrize("workers", [0, 1])
def test_state_that_cannot_be_repeated_is_named_with_the_remedy(workers):
    source = source_of(DataLoader(Unrepeatable(), num_workers=workers))
    source.open(0)
    with pytest.raises(TrainerError, match=r"dataset\.noise\['source'\] draws from the operating system.*use random"):
        source.next()
    source.close()


@pytest.mark.parametrize(("epoch", "batch"), [(0, 7), (0, -1), (-1, 0)])
def test_a_position_that_does_not_exist_is_refused(epoch, batch):
    with pytest.raises(TrainerError, match="an epoch has 6 batches"):
        source_of(LOADERS["shuffle"]()).open(epoch, batch)


def test_reading_before_opening_is_refused():
    with pytest.raises(TrainerError, match="not open"):
        source_of(LOADERS["shuffle"]()).next()


def test_batches_out_of_order_are_refused():
    loader = DataLoader(range(4), num_workers=1, in_order=False)
    with pytest.raises(TrainerError, match="in_order=False"):
        source_of(loader)


@pytest.mark.parametrize("name", ["sampler", "batch_sampler"])
def test_a_sampler_that_can_be_read_once_is_refused(name):
    loader = DataLoader(range(4), **{name: iter([[1, 2], [3]])})
    with pytest.raises(TrainerError, match=f"{name} of the train loader is a list_iterator"):
        source_of(loader)


class Reseeding(Augmented):
    """Makes its generator anew for every epoch, as a dataset may that does not know of positions."""

    def set_epoch(self, epoch):
        self.own = random.Random(epoch)

    def __getitem__(self, index):
        return self.own.random()


@pytest.mark.parametrize("workers", WORKERS)
def test_a_generator_made_for_each_epoch_is_found(workers):
    make = lambda: source_of(DataLoader(Reseeding(), batch_size=4, **WORKERS[workers]))  # noqa: E731
    source = make()
    source.open(0)
    rest(source)
    source.open(1)
    whole = rest(source)
    source.close()
    source = make()
    source.open(1, 3)
    assert rest(source) == whole[3:]
    source.close()


class Drawing(Sampler):
    """Draws while it is told the epoch."""

    def set_epoch(self, epoch):
        self.offset = random.randrange(SIZE) + int(np.random.randint(SIZE)) + int(torch.randint(SIZE, (1,)))

    def __len__(self):
        return SIZE

    def __iter__(self):
        return iter([(index + self.offset) % SIZE for index in range(SIZE)])


def test_a_sampler_that_draws_while_it_is_told_the_epoch():
    epochs = []
    for process_seed in (1, 2):
        rng.seed_everything(process_seed)
        before = rng.capture()
        source = source_of(DataLoader(range(SIZE), batch_size=4, sampler=Drawing()))
        source.open(0)
        assert before.differing(rng.capture()) == []
        epochs.append(rest(source))
    assert epochs[0] == epochs[1]


def salting_init(worker):
    torch.utils.data.get_worker_info().dataset.salt = [torch.initial_seed(), random.random(), np.random.rand()]


class Salted(Augmented):
    salt = None

    def __getitem__(self, index):
        return [index, *self.salt]


@pytest.mark.parametrize("persistent", [False, True])
def test_what_a_worker_draws_at_its_start_is_the_same_in_every_epoch(persistent):
    loader = DataLoader(
        Salted(), batch_size=4, num_workers=1, worker_init_fn=salting_init, persistent_workers=persistent
    )
    source = source_of(loader)
    source.open(0)
    rest(source)
    source.open(1)
    whole = rest(source)
    source.close()
    rng.seed_everything(5)
    source = source_of(loader)
    source.open(1, 2)
    assert rest(source) == whole[2:]
    source.close()


class Doubling(DataLoader):
    def __iter__(self):
        for batch in super().__iter__():
            yield batch * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_subclass_keeps_what_it_does(workers):
    source = source_of(Doubling(range(6), batch_size=2, num_workers=workers))
    source.open(0, 1)
    assert rest(source) == [[4, 6], [8, 10]]
    source.close()


def test_spawned_workers_give_the_same_as_forked_ones():
    data = TensorDataset(torch.arange(12))
    epochs = []
    for method in ("fork", "spawn"):
        source = source_of(DataLoader(data, batch_size=4, shuffle=True, num_workers=1, multiprocessing_context=method))
        source.open(0, 1)
        epochs.append(rest(source))
        source.close()
    assert epochs[0] == epochs[1]


def test_the_fingerprint_is_plain_and_tells_loaders_apart():
    def fingerprint(kind, **kw):
        return source_of(LOADERS[kind](**kw)).fingerprint()

    assert fingerprint("shuffle") == {
        "kind": "map",
        "dataset": "Augmented",
        "length": SIZE,
        "batches": 6,
        "batch_size": 4,
        "drop_last": False,
        "sampler": "RandomSampler",
        "num_workers": 0,
        "streams": "of the process",
    }
    several = [fingerprint(kind) for kind in ("sequential", "shuffle", "drop_last", "own sampler", "own batch sampler")]
    assert len({str(each) for each in several}) == len(several)
    assert fingerprint("shuffle", num_workers=2)["streams"] == "by position"
