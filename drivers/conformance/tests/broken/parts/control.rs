//! A control part with its defects.
use crate::bench::Shared;
use crate::defect::Defect::*;
use ix_dataplane::device::{Clock, NicControl, Progress};
use ix_dataplane::time::Instant;
use ix_memory_nic::{CommandError, Stopped};
use std::convert::Infallible;
use std::rc::Rc;

/// Proof that the card was stopped, if it is one.
pub struct Proof(Option<Stopped>);

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Proof {
    /// Without a right one, there is one for a moment.
    pub fn with(&self, shared: &Shared, run: impl FnOnce(&Stopped)) {
        if let Some(proof) = &self.0 {
            return run(proof);
        }
        let mut control = shared.control.borrow_mut();
        let Ok(proof) = control.reset(&|| Instant(0));
        run(&proof);
        let Ok(()) = control.restart(proof, &|| Instant(0));
    }
}

pub struct BrokenControl {
    table: Vec<u16>,
    shared: Rc<Shared>,
    under_way: bool,
}

impl BrokenControl {
    pub fn new(table: Vec<u16>, shared: Rc<Shared>) -> BrokenControl {
        BrokenControl { table, shared, under_way: false }
    }
}

impl NicControl for BrokenControl {
    type Stopped = Proof;
    type CommandError = CommandError;
    type StartError = Infallible;

    fn pairs(&self) -> u16 {
        self.shared.control.borrow().pairs()
    }

    fn reta(&self) -> &[u16] {
        &self.table
    }

    fn set_reta(&mut self, group: u16, queue: u16) -> Result<(), CommandError> {
        let exist = usize::from(group) < self.table.len() && queue < self.pairs();
        if self.shared.has(TakesAnyEntry) && !exist {
            return Ok(());
        }
        if !self.shared.has(TableIsOnlySaid) {
            self.shared.control.borrow_mut().set_reta(group, queue)?;
        }
        self.table[usize::from(group)] = queue;
        let at_once = self.shared.has(ChangesAtOnce)
            || self.shared.has(StagesIntoTheChange) && self.under_way;
        if at_once {
            self.shared.card.borrow_mut().steer(group, queue);
        }
        Ok(())
    }

    fn commit(&mut self, now: Instant) -> Result<(), CommandError> {
        let result = self.shared.control.borrow_mut().commit(now);
        self.under_way = true;
        if self.shared.has(TakesManyChanges) { Ok(()) } else { result }
    }

    fn poll(&mut self, now: Instant) -> Progress<CommandError> {
        if self.shared.has(DoneBeforeItIs) && std::mem::take(&mut self.under_way) {
            return Progress::Done;
        }
        let progress = self.shared.control.borrow_mut().poll(now);
        self.under_way = progress == Progress::Pending;
        if self.shared.has(StagesIntoTheChange) && progress == Progress::Done {
            let mut card = self.shared.card.borrow_mut();
            (0..).zip(&self.table).for_each(|(group, queue)| card.steer(group, *queue));
        }
        let for_ever = self.shared.has(IsDoneForEver) && progress == Progress::Idle;
        if for_ever { Progress::Done } else { progress }
    }

    fn read_link_up(&self) -> bool {
        self.shared.control.borrow().read_link_up()
    }

    fn read_needs_reset(&self) -> bool {
        self.shared.control.borrow().read_needs_reset()
    }

    fn reset(&mut self, clock: Clock<'_>) -> Result<Proof, Infallible> {
        self.shared.stopped.set(true);
        if self.shared.has(DoesNotStop) {
            return Ok(Proof(None));
        }
        let proof = self.shared.control.borrow_mut().reset(clock)?;
        Ok(Proof(Some(proof)))
    }

    fn restart(&mut self, stopped: Proof, clock: Clock<'_>) -> Result<(), Infallible> {
        self.shared.stopped.set(false);
        if let Some(proof) = stopped.0 {
            self.shared.control.borrow_mut().restart(proof, clock)?;
        }
        if self.shared.has(RestartsWithAFreshTable) {
            let pairs = self.pairs();
            let mut card = self.shared.card.borrow_mut();
            (0..card.capabilities().groups).for_each(|group| card.steer(group, group % pairs));
        }
        Ok(())
    }
}
