"""One call of `fit`: everything that it binds together, how it is restored, saved and left."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtf_trainer import attestation, ending, fingerprint, receipts, restoring, rng
from mtf_trainer.blame import fault_of
from mtf_trainer.callbacks import Events, TrainingCallback
from mtf_trainer.checkpoint import Checkpoint, CheckpointStore, Kind, Snapshot
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.contents import Contents
from mtf_trainer.data import DataSource, DataWaitInterrupted
from mtf_trainer.distributed import shares
from mtf_trainer.distributed.redistribution import deal_anew, left_behind, ranks_of, section_of
from mtf_trainer.distributed.team import Team
from mtf_trainer.errors import CheckpointError, TrainerError
from mtf_trainer.guard import REMEDY, Fault, Guard, Place
from mtf_trainer.loop import Loop, Step
from mtf_trainer.metric_objects import MetricObjects, MetricState
from mtf_trainer.phases import TrainerPhase as Phase
from mtf_trainer.preemption import StopFlag
from mtf_trainer.preparation import load_plain_state, memory_format, plain_state
from mtf_trainer.reader import Reader
from mtf_trainer.rng import RNGState
from mtf_trainer.stand_ins import without_stand_ins
from mtf_trainer.state import ResumeState
from mtf_trainer.steps import Engine
from mtf_trainer.telemetry import Telemetry
from mtf_trainer.timelimit import SaveBounds
from mtf_utils.stateful import Stateful

if TYPE_CHECKING:
    from mtf_trainer.distributed.agreement import Agreement
    from mtf_trainer.trainer import GenericTrainer

__all__ = ["Session"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """A checkpoint that was taken up: where it lies, what it held, and whether by as many ranks as made it."""

    path: Path
    digests: attestation.Digests
    by_as_many: bool


@dataclass(kw_only=True)
class Session:
    """A run in this process.

    Attributes:
        seed: the seed in use.
        registered: what has a state of its own, by name.
        metrics: the objects that compute metrics.
        telemetry: what the run tells.
        state: where the run stands.
        flag: whether it was told to stop.
        directory: where the checkpoints are.
        guard: keeps the ledger of attempts.
        team: the ranks that train together.
        agreement: when all of them stop; None in a process that trains alone.
        restored: what was taken up, until `settle_restored` has attested it.
        loop: the phases; made anew by `restore`.
        saved: where the latest checkpoint of this process was made.
        fault: at which batch training failed.
    """

    trainer: GenericTrainer
    config: GenericTrainerConfig
    engine: Engine
    train: DataSource
    val: DataSource | None
    callbacks: Sequence[TrainingCallback]
    registered: Mapping[str, Stateful]
    metrics: MetricObjects
    telemetry: Telemetry
    store: CheckpointStore
    directory: Path
    guard: Guard
    flag: StopFlag
    seed: int
    team: Team = field(default_factory=Team)
    agreement: Agreement | None = None
    state: ResumeState = field(default_factory=lambda: ResumeState(Phase.INIT, 0, 0))
    clock: Callable[[], float] = time.time
    loop: Loop = field(init=False)
    restored: Restored | None = field(default=None, init=False)
    saved: Place = field(default_factory=Place, init=False)
    fault: Fault | None = field(default=None, init=False)
    _began_at: tuple[Any, ...] = field(default=(), init=False)
    _contents: Contents = field(init=False)
    _is_exact: bool = field(default=True, init=False)
    _reserves: bool = field(init=False)
    _bounds: SaveBounds = field(init=False)

    def __post_init__(self) -> None:
        if self.team.size > 1:
            self.metrics.check_shared()
        self.metrics.move_to(self.engine.device)
        self.registered = {**self.registered, **self.metrics.states(self.engine.device)}
        has_model = self.team.is_first or (self.engine.parallel is not None and self.engine.parallel.is_sharded)
        self._reserves = self.config.checkpoint.async_save and has_model
        self._contents = Contents(
            engine=self.engine,
            train=self.train,
            val=self.val,
            callbacks=self.callbacks,
            registered=self.registered,
            telemetry=self.telemetry,
            upcoming=lambda: self.loop.upcoming,
        )
        self._bounds = SaveBounds(self.config.preemption, self.flag, self.store.next_save_s)
        self._bind()

    def _bind(self) -> None:
        """Make the loop for the state that the session has."""
        device, layout, trail = self.engine.device, memory_format(self.config.performance), self.guard.trail
        trail.state = self.state
        parallel, divided = self.engine.parallel, self.team.size > 1
        train = Reader(self.train, device, trail.batch, layout, divided)
        val = None if self.val is None else Reader(self.val, device, trail.batch, layout, divided)
        training_step: Step = self.trainer.training_step
        validation_step: Step = self.trainer.validation_step
        if divided:
            collecting = [each for each in self.registered.values() if isinstance(each, MetricState)]
            training_step = without_stand_ins(training_step, train, collecting)
            validation_step = without_stand_ins(validation_step, val, collecting)
        if parallel is not None:
            training_step = parallel.training_step(training_step, lambda: self.loop.agenda.completes_window())
        self.loop = Loop(
            config=self.config,
            state=self.state,
            engine=self.engine,
            events=Events(self.callbacks, self.state, self.trainer, self.before_update),
            train=train,
            val=val,
            training_step=training_step,
            validation_step=validation_step,
            metrics=self.metrics,
            record=self._record,
            save=self.save_periodically,
            before_update=self.before_update,
            before_validation=self.engine.before_validation,
            team=self.team,
        )

    def start(self) -> None:
        """Begin a new run with a checkpoint of its beginning, so that what cannot be saved shows at once."""
        if not self.team.is_first:
            rng.seed_everything(rng.derive_seed(self.seed, "rank", self.team.rank))
        self.telemetry.open(None)
        self.store.save(self.snapshot(), kind=Kind.INITIAL)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up a saved state, all but the random streams, which `run` puts back last.

        Raises:
            CheckpointError: the checkpoint does not belong to this run.
        """
        self._check(checkpoint)
        resume, sections = shares.shares_of(
            checkpoint, self.team, self.engine, self._contents.training, self.registered
        )
        training, by_as_many = sections["training"], ranks_of(checkpoint) == self.team.size
        self.restored = Restored(checkpoint.path, attestation.digests(self._contents.as_saved(sections)), by_as_many)
        fingerprint.check_model(plain_state(self.engine.model), sections["model"], source=str(checkpoint.path))
        load_plain_state(self.engine.model, sections["model"])
        restoring.load_optimizer(self.engine.optimizer, sections["optimizer"], source=str(checkpoint.path))
        self.engine.load_state_dict(training["engine"])
        self.train.load_state_dict(training["data"]["train"])
        if self.val is not None and training["data"]["val"] is not None:
            self.val.load_state_dict(training["data"]["val"])
        restoring.load_stateful(training, self.callbacks, self.registered, source=str(checkpoint.path))
        self.state = ResumeState.from_dict(resume, rng=RNGState.from_state_dict(training["rng"]))
        restoring.prolong(self.state, self.config)
        if not by_as_many:
            deal_anew(self.state, self.train, self.val)
        if self.state.phase is Phase.TRAINING_COMPLETE:  # nothing is left to record
            self.telemetry.assume(training["journal_bytes"])
        else:
            self.telemetry.open(training["journal_bytes"])
        threads = checkpoint.fingerprint["environment"]["threads"]
        if threads != torch.get_num_threads():
            logger.info("using %d threads, as the run did before: their number changes results", threads)
            torch.set_num_threads(threads)
        self._bind()

    def _check(self, checkpoint: Checkpoint) -> None:
        faults, inexact = fingerprint.compare(checkpoint.fingerprint, self.fingerprint())
        if faults:
            raise CheckpointError(
                f"{checkpoint.path} belongs to another run: {'; '.join(faults)}. "
                "Use a new checkpoint_dir for a new run",
                path=checkpoint.path,
            )
        if not shares.is_as_saved(checkpoint, self.team, self.engine) and (
            lost := list(left_behind(checkpoint, self.registered))
        ):
            inexact.append(f"of {', '.join(lost)} only what rank 0 had is left")
        self._is_exact = not inexact
        if inexact and self.team.is_first:
            logger.warning("continuing, but results are no longer exact: %s", "; ".join(inexact))

    def run(self) -> None:
        """Train to the end, or to the nearest boundary that can be saved once a stop is asked for.

        Raises:
            TrainingPreempted: told to stop; the state is durable.
            TrainingStopped: told to stop once too often.
        """
        self._began_at = ending.standing(self.state)
        self.telemetry.start_progress(self.state)
        self.settle_restored()
        try:
            self._train_to_the_end()
        except SystemExit:  # told to go: no error
            raise
        except BaseException as error:
            self.fault = fault_of(error, self.state, self.train, self.val)
            self.store.join_copies()
            self.loop.events.tell("on_exception", error)
            raise

    def settle_restored(self) -> None:
        """Put the random streams back, and say whether everything is as it was saved."""
        restored, self.restored = self.restored, None
        if restored is None or self.state.rng is None:
            return
        rng.restore(self.state.rng)
        self.state.rng = None
        if (place := self.loop.upcoming) is not None:
            with contextlib.suppress(DataWaitInterrupted):  # told to stop already: the first boundary will see to it
                self.loop.train.go_to(*place)
        live = attestation.digests(self._contents.sections())
        if not restored.by_as_many:  # the data is dealt anew
            live["data"], live["upcoming"] = restored.digests["data"], restored.digests["upcoming"]
        different = shares.of_all_ranks(attestation.differing_components(restored.digests, live), self.team)
        if different and self.team.is_first:
            logger.warning("restored from %s, but not exact: %s", restored.path, "; ".join(different))
        elif not different:
            logger.info("restored from %s: %s", restored.path, "exact" if self._is_exact else "all that was saved")

    def _train_to_the_end(self) -> None:
        flag, loop, limit, agreement = self.flag, self.loop, self._bounds.time_limit, self.agreement
        for phase in self.guard.trail.boundaries(loop.boundaries()):
            if limit is not None and loop.can_save:
                limit.save_point()
            told = flag.requested if agreement is None else agreement.is_due()
            if told and loop.can_save and phase is not Phase.TRAINING_COMPLETE:
                self._leave()
        self._finish()

    def _record(self, event: str, metrics: Mapping[str, float]) -> None:
        self.telemetry.record(self.state, event, metrics)

    def snapshot(self) -> Snapshot:
        """The whole state as one value; its tensors are the live ones."""
        self.store.join_copies()
        self.loop.settle()
        self.state.timestamp = self.clock()
        resume, sections = self.state.to_dict(), self._contents.sections()
        if not self.team.is_first:
            own = shares.own_section(resume, sections, self.engine, self.callbacks)
            sections = {section_of(self.team.rank): own}
        return Snapshot(
            resume=resume,
            sections=sections,
            epoch=self.state.epoch,
            global_step=self.state.global_step,
            metric=receipts.finite(self.state.metric),
            fingerprint=self.fingerprint(),
            steady=self.engine.steady(),
            refers_to=self.telemetry.sync,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What must agree between a checkpoint and the run that continues it."""
        engine, ranks = self.engine, self.team.size
        return {
            "seed": self.seed,
            "settings": fingerprint.trainer_part(self.config, engine.optimizer),
            "data": fingerprint.data(self.train, self.val),
            "environment": fingerprint.environment(self.config, self.trainer.model, engine.device, ranks=ranks),
        }

    def before_update(self) -> None:
        """Let a save in the background finish its copies, or hear that it failed, before the state changes."""
        self.store.join_copies()
        self.store.check()
        if self._reserves and self.engine.optimizer.state:  # only now it is known how much there is to copy
            self._reserves = False
            size = sum(tensor.nbytes for tensor in (*self.engine.steady(), *self.engine.model.buffers()))
            self.store.reserve(size, pinned=self.engine.device.type == "cuda")

    def save_periodically(self) -> None:
        """Save as the configuration says: in the background, or at once."""
        save = self.store.save_in_background if self.config.checkpoint.async_save else self.store.save
        save(self.snapshot(), kind=Kind.PERIODIC, deadline_s=self._bounds.timeout_s)
        self.saved = Place.of(self.state)

    def save_now(self, kind: Kind, *, pinned: bool = False) -> Path:
        """Save and wait until the checkpoint is durable."""
        if self.agreement is not None:
            if self.fault is not None:
                raise TrainerError("save_checkpoint() after a failure: the other ranks do not save with this one")
            self.agreement.gather("save_checkpoint()")
        limit_s = self._bounds.grace_s if kind is Kind.EMERGENCY else self._bounds.timeout_s
        path = self.store.save(self.snapshot(), kind=kind, deadline_s=limit_s, pinned=pinned)
        self.saved = Place.of(self.state)
        return path

    def _leave(self) -> None:
        state, flag = self.state, self.flag
        state.preemptions += flag.signal_name != "SIGINT"
        self.store.join_copies()
        self.loop.events.tell("on_preemption", flag.signal_name)
        with ending.telling_late_saves(self.team, flag.signal_name):
            path = self.store.save(self.snapshot(), kind=Kind.EMERGENCY, deadline_s=self._bounds.left_s())
        place = f"epoch {state.epoch + 1}, step {state.global_step}, before {state.phase.value}"
        if flag.signal_name == "SIGINT":
            self.guard.withdraw()
        elif (reason := self.team.gather(self._why_enough())[0]) is not None:
            ending.stop_for_good(self.team, f"{reason}; saved at {place}: {path}")
        ending.go(self.team, flag.signal_name, place, path)

    def _why_enough(self) -> str | None:
        """Why the run must not be continued after this preemption; None if it may."""
        count, limit, end = self.state.preemptions, self.config.preemption.max_preemptions, Place.of(self.state)
        # within an attempt whoever starts the next one counts: it knows what was a preemption, and since when to count
        if limit is not None and count > limit and receipts.current_attempt() is None:
            too_often = f"preempted {count} times, more than preemption.max_preemptions={limit}, which can be raised"
            self.guard.stopped(too_often, end)
            return too_often
        reason = self.guard.preempted(end, moved=ending.standing(self.state) != self._began_at)
        return reason and f"{reason}; {REMEDY}"

    def _finish(self) -> None:
        path = self.store.save(self.snapshot(), kind=Kind.FINAL, deadline_s=self._bounds.timeout_s)
        self.write_result(path)
        self.guard.finished(Place.of(self.state))
        logger.info("training is complete after %d epochs, %d steps", self.state.epoch, self.state.global_step)

    def write_result(self, checkpoint: Path) -> None:
        """Say what training came to."""
        if self.team.is_first:
            receipts.write_result(self.state, checkpoint=checkpoint, seed=self.seed, directory=self.directory)

    @contextlib.contextmanager
    def reopened(self, store: CheckpointStore) -> Iterator[None]:
        """Save into a store that is open for this block only, once `fit` has closed its own."""
        before, self.store = self.store, store
        try:
            yield
        finally:
            store.close()
            self.store = before

    @contextlib.contextmanager
    def resources(self) -> Iterator[None]:
        """Open what callbacks and loggers need, and close everything in the end, however it comes."""
        with contextlib.ExitStack() as stack:
            ending.release(stack, self.store.close)
            ending.release(stack, self.telemetry.close)
            ending.release(stack, self.telemetry.progress.close)
            if self._bounds.time_limit is not None:
                self._bounds.time_limit.start()
                ending.release(stack, self._bounds.time_limit.close)
            ending.release(stack, self.telemetry.close_loggers)
            ending.release(stack, self._contents.close_data)
            for callback in self.callbacks:
                callback.setup(self.trainer)
                ending.release(stack, callback.teardown, self.trainer)
            ending.release(stack, self.store.join_copies)  # first of all: a callback may still change anything
            yield
