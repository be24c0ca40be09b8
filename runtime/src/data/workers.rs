//! The threads that prepare batches ahead. They share a short queue of open batches. Each thread claims the next image of the
//! oldest batch with unclaimed images, prepares it and copies it to its position. The queue is short, so memory stays
//! bounded with a slow consumer. Positions are fixed, so the order in which threads finish has no effect.

use super::dataset::{Dataset, Split};
use super::picture::Scratch;
use super::pipeline::{Pipeline, View};
use super::random::{Purpose, Stream, order};
use crate::Error;
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The maximum number of batches that are prepared ahead.
const AHEAD: usize = 3;
/// The number of buffers that are kept for later batches.
const SPARE: usize = 2;

/// The work of the threads.
pub(crate) struct Job {
    pub dataset: Dataset,
    pub split: Split,
    pub pipeline: Pipeline,
    pub kind: Kind,
    /// Images of a full batch; each gives one row, or one for each of its views.
    pub samples: usize,
    /// Batches of an epoch.
    pub batches: u64,
    /// How many images may be unusable.
    pub tolerance: usize,
}

/// An epoch.
pub(crate) enum Kind {
    /// Full batches, views drawn at random, one epoch after another.
    Training { seed: u64, shuffle: bool },
    /// Every image once, in order, with these views.
    Evaluation { views: Vec<View> },
}

/// The contents of a batch.
#[derive(Default)]
pub(crate) struct Rows {
    pub images: Vec<f32>,
    pub labels: Vec<i64>,
    /// The number of the image that was used, for each image of the batch.
    pub samples: Vec<usize>,
}

/// A batch that is being prepared.
struct Slot {
    /// Unlike the number, never the same twice: threads may come late with rows for a batch that was given up.
    ticket: u64,
    number: u64,
    /// How many images it has; fewer than `samples` only at the end of an evaluation.
    count: usize,
    claimed: usize,
    done: usize,
    order: Option<Arc<Vec<u32>>>,
    rows: Arc<Mutex<Rows>>,
    failures: Vec<(usize, Failures)>,
}

/// The images that could not be used in place of one: itself, and what would have replaced it.
#[derive(Default)]
pub(crate) struct Failures {
    pub images: Vec<(usize, Error)>,
    /// Whether no replacement was found, so that the row is empty.
    pub without: bool,
}

/// A batch that is ready.
pub(crate) struct Ready {
    pub number: u64,
    pub count: usize,
    pub rows: Rows,
    /// In the batch's order, with their places in it.
    pub failures: Vec<(usize, Failures)>,
}

#[derive(Default)]
struct State {
    slots: VecDeque<Slot>,
    /// The batch to open next.
    next: u64,
    tickets: u64,
    spare: Vec<Rows>,
    order: Option<(u64, Arc<Vec<u32>>)>,
    fatal: Option<Error>,
    stopping: bool,
}

/// The queue between the threads and the consumer.
pub(crate) struct Queue {
    pub job: Job,
    state: Mutex<State>,
    /// Signals work, or the request to stop.
    work: Condvar,
    /// Signals that the oldest batch is ready, or an error.
    ready: Condvar,
}

impl Job {
    /// Rows per image.
    pub fn views(&self) -> usize {
        match &self.kind {
            Kind::Training { .. } => 1,
            Kind::Evaluation { views } => views.len(),
        }
    }

    /// Images of batch `number`.
    fn count(&self, number: u64) -> usize {
        let first = (number % self.batches) as usize * self.samples;
        self.samples.min(self.dataset.len(self.split) - first)
    }

    fn ended(&self, number: u64) -> bool {
        matches!(self.kind, Kind::Evaluation { .. }) && number >= self.batches
    }

    /// Prepares image `index` for batch `number` in `out`. Where it cannot be used, training takes the next image that
    /// can, and an evaluation goes without. Gives the number and class of the one that was used.
    fn prepare(
        &self,
        number: u64,
        index: usize,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> (Option<(usize, i64)>, Failures) {
        let mut failures = Failures::default();
        let images = self.dataset.len(self.split);
        let attempts = match self.kind {
            Kind::Training { .. } => self.tolerance + 1,
            Kind::Evaluation { .. } => 1,
        };
        for used in (index..images).chain(0..index).take(attempts) {
            let source = self.dataset.source();
            let outcome = source.sample(self.split, used).and_then(|(picture, label)| {
                let framed = self.pipeline.to_frame(&picture, scratch);
                framed
                    .map(|()| label)
                    .map_err(|error| error.at(source.name(self.split, used)))
            });
            match outcome {
                Ok(label) => {
                    self.cut(number, index, scratch, out);
                    return (Some((used, label)), failures);
                }
                Err(error) => failures.images.push((used, error)),
            }
        }
        failures.without = true;
        (None, failures)
    }

    fn cut(&self, number: u64, index: usize, scratch: &Scratch, out: &mut [f32]) {
        match &self.kind {
            Kind::Training { seed, .. } => {
                let stream = Stream::new(*seed, Purpose::Augment, number / self.batches, index as u64);
                self.pipeline
                    .cut(&scratch.frame, self.pipeline.drawn(stream), out);
            }
            Kind::Evaluation { views } => {
                for (view, out) in views.iter().zip(out.chunks_exact_mut(self.pipeline.elements())) {
                    self.pipeline.cut(&scratch.frame, *view, out);
                }
            }
        }
    }
}

impl Queue {
    pub fn new(job: Job) -> Queue {
        Queue {
            job,
            state: Mutex::default(),
            work: Condvar::new(),
            ready: Condvar::new(),
        }
    }

    /// The loop of a thread, until it is told to stop.
    pub fn work(&self) {
        let mut scratch = Scratch::default();
        let mut out = vec![0.0; self.job.views() * self.job.pipeline.elements()];
        let mut state = self.lock();
        loop {
            if state.stopping {
                return;
            }
            let Some(slot) = self.claimable(&mut state) else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (ticket, number, place) = (slot.ticket, slot.number, slot.claimed);
            let position = (number % self.job.batches) as usize * self.job.samples + place;
            let index = slot
                .order
                .as_ref()
                .map_or(position, |order| order[position] as usize);
            let rows = Arc::clone(&slot.rows);
            slot.claimed += 1;
            drop(state);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let (used, failures) = self.job.prepare(number, index, &mut scratch, &mut out);
                if let Some(used) = used {
                    let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                    rows.put(place, used, self.job.views(), &out);
                }
                failures
            }));
            drop(rows);
            state = self.lock();
            match outcome {
                Ok(failures) => self.finish(&mut state, ticket, place, failures),
                Err(panic) => {
                    let name = self.job.dataset.source().name(self.job.split, index);
                    let what = panic_message(&*panic);
                    let message = format!("{name}: preparing this image failed by a bug of alexc: {what}");
                    state.fatal.get_or_insert(Error::work(message));
                    self.ready.notify_all();
                }
            }
        }
    }

    /// The oldest batch with an image left to claim; a new one when there is room.
    fn claimable<'a>(&self, state: &'a mut State) -> Option<&'a mut Slot> {
        if state.fatal.is_some() {
            return None;
        }
        let open = state.slots.iter().position(|slot| slot.claimed < slot.count);
        match open {
            Some(place) => state.slots.get_mut(place),
            None if state.slots.len() < AHEAD && !self.job.ended(state.next) => {
                let slot = self.open(state);
                state.slots.push_back(slot);
                self.work.notify_all();
                state.slots.back_mut()
            }
            None => None,
        }
    }

    fn open(&self, state: &mut State) -> Slot {
        let job = &self.job;
        let (number, ticket, epoch) = (state.next, state.tickets, state.next / job.batches);
        state.next += 1;
        state.tickets += 1;
        let order = match job.kind {
            Kind::Training { seed, shuffle: true } => match &state.order {
                Some((of, order)) if *of == epoch => Some(Arc::clone(order)),
                _ => {
                    let order = Arc::new(order(seed, epoch, job.dataset.len(job.split) as u32));
                    state.order = Some((epoch, Arc::clone(&order)));
                    Some(order)
                }
            },
            _ => None,
        };
        let count = job.count(number);
        let mut rows = state.spare.pop().unwrap_or_default();
        rows.fit(job.samples, count, job.views(), job.pipeline.elements());
        let rows = Arc::new(Mutex::new(rows));
        Slot {
            ticket,
            number,
            count,
            claimed: 0,
            done: 0,
            order,
            rows,
            failures: Vec::new(),
        }
    }

    fn finish(&self, state: &mut State, ticket: u64, place: usize, failures: Failures) {
        let Some(at) = state.slots.iter().position(|slot| slot.ticket == ticket) else {
            return;
        };
        let slot = &mut state.slots[at];
        slot.done += 1;
        if !failures.images.is_empty() {
            slot.failures.push((place, failures));
        }
        if at == 0 && slot.done == slot.count {
            self.ready.notify_all();
        }
    }

    /// Waits for the next batch; `None` after the last. After an error there are only errors.
    pub fn take(&self) -> Result<Option<Ready>, Error> {
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.fatal {
                return Err(error.clone());
            }
            match state.slots.front() {
                Some(slot) if slot.done == slot.count => break,
                None if self.job.ended(state.next) => return Ok(None),
                _ => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let Some(mut slot) = state.slots.pop_front() else {
            return Ok(None);
        };
        drop(state);
        self.work.notify_all();
        slot.failures.sort_by_key(|(place, _)| *place);
        Ok(Some(Ready {
            number: slot.number,
            count: slot.count,
            rows: std::mem::take(&mut *slot.rows.lock().unwrap_or_else(PoisonError::into_inner)),
            failures: slot.failures,
        }))
    }

    /// Gives up what was prepared and begins at batch `number`.
    pub fn seek(&self, number: u64) {
        let mut state = self.lock();
        state.slots.clear();
        state.next = number;
        drop(state);
        self.work.notify_all();
    }

    /// Takes buffers back.
    pub fn recycle(&self, rows: Rows) {
        let mut state = self.lock();
        if state.spare.len() < SPARE {
            state.spare.push(rows);
        }
    }

    /// Makes every further `take` fail.
    pub fn fail(&self, error: Error) {
        self.lock().fatal.get_or_insert(error);
    }

    /// Tells the threads to end.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.work.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    /// Makes room for `samples` images, of which `count` will come; the others are zeros.
    fn fit(&mut self, samples: usize, count: usize, views: usize, elements: usize) {
        self.images.resize(samples * views * elements, 0.0);
        self.images[count * views * elements..].fill(0.0);
        self.labels.resize(samples * views, 0);
        self.labels[count * views..].fill(0);
        self.samples.clear();
        self.samples.resize(count, 0);
    }

    /// Takes the image at `place` out; those behind it move up, and zeros follow.
    pub fn remove(&mut self, place: usize, views: usize, elements: usize) {
        let (images, labels) = (self.images.len(), self.labels.len());
        self.images
            .drain(place * views * elements..(place + 1) * views * elements);
        self.images.resize(images, 0.0);
        self.labels.drain(place * views..(place + 1) * views);
        self.labels.resize(labels, 0);
        self.samples.remove(place);
    }

    fn put(&mut self, place: usize, (used, label): (usize, i64), views: usize, images: &[f32]) {
        self.images[place * images.len()..][..images.len()].copy_from_slice(images);
        self.labels[place * views..][..views].fill(label);
        self.samples[place] = used;
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
